set -e
cat > Test.java <<'J'
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
public class Test {
    public static void main(String[] arguments) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<Long>> sums = new ArrayList<>();
        for (int n = 1; n <= 8; n++) { long end = n * 100000L; sums.add(pool.submit(() -> LongStream.range(0, end).sum())); }
        long all = 0;
        for (Future<Long> sum : sums) all += sum.get();
        pool.shutdown();
        Map<String, Integer> map = new TreeMap<>();
        for (int i = 0; i < 200000; i++) map.merge("key" + i % 100, 1, Integer::sum);
        try { Object[] array = new String[1]; array[0] = 1; } catch (ArrayStoreException expected) { all++; }
        System.gc();
        System.out.println(all + " " + map.size() + " " + map.get("key7"));
    }
}
J
javac Test.java
test "$(java Test)" = "1019998200001 100 2000"
test "$(java -Xint Test)" = "1019998200001 100 2000"
