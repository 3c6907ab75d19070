# Programs, pipes, substitutions and subshells, as scripts of packages use them.
i=0
while [ $i -lt 3 ]; do
    i=$((i + 1))
    name=$(basename "/some/directory/file$i.txt" .txt)
    echo "$name" | sed "s/file/$i /" | cut -d' ' -f1
    (cd /usr/bin && expr "$i" \* 2)
    test -x "$(command -v env)" && env true
done
