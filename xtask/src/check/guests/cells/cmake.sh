set -e
cat > CMakeLists.txt <<'C'
cmake_minimum_required(VERSION 3.20)
project(shapes CXX)
enable_testing()
find_package(Threads REQUIRED)
add_library(shapes SHARED shapes.cpp)
add_executable(areas areas.cpp)
target_link_libraries(areas shapes Threads::Threads)
add_test(NAME areas COMMAND areas)
set_tests_properties(areas PROPERTIES PASS_REGULAR_EXPRESSION "^12 caught 8")
C
cat > shapes.cpp <<'C'
#include <stdexcept>
int area(int a, int b) { if (a < 0) throw std::invalid_argument("negative"); return a * b; }
C
cat > areas.cpp <<'C'
#include <atomic>
#include <iostream>
#include <stdexcept>
#include <thread>
#include <vector>
int area(int a, int b);
int main() {
    std::cout << area(3, 4) << ' ';
    try { area(-1, 1); } catch (const std::invalid_argument &) { std::cout << "caught "; }
    std::atomic<int> count{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; i++) threads.emplace_back([&] { count++; });
    for (auto &thread : threads) thread.join();
    std::cout << count << std::endl;
}
C
cmake -S . -B build > log
cmake --build build --parallel 2 >> log
ctest --test-dir build >> log
