set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
export GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000'
git init --quiet --initial-branch=main one
cd one
for i in $(seq 20); do echo "$i" > "file$i"; git add .; git commit --quiet -m "number $i"; done
git gc --quiet --aggressive
git fsck --full --strict
cd ..
git clone --quiet --no-local one two
test "$(git -C two rev-parse HEAD)" = "$(git -C one rev-parse HEAD)"
test "$(git -C two log --oneline | wc -l)" = 20
git -C two checkout --quiet -b side HEAD~5
echo side > two/side
git -C two add side
git -C two commit --quiet -m side
git -C two merge --quiet -m merged main
test "$(git -C two status --porcelain)" = ""
git -C two repack -adq --threads=4
git -C two fsck --full
