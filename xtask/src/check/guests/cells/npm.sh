set -e
# Packages of its own, so that no registry is needed.
mkdir add sum
cat > add/package.json <<'J'
{ "name": "add", "version": "1.0.0", "main": "add.js", "bin": { "add": "add.js" } }
J
cat > add/add.js <<'J'
#!/usr/bin/env node
module.exports = (a, b) => a + b;
if (require.main === module) console.log(module.exports(...process.argv.slice(2).map(Number)));
J
(cd add && npm pack --silent > /dev/null)
cd sum
cat > package.json <<'J'
{ "name": "sum", "version": "1.0.0", "dependencies": { "add": "file:../add/add-1.0.0.tgz" },
  "scripts": { "postinstall": "node -e \"require('fs').writeFileSync('installed', 'yes')\"", "test": "add 2 3" } }
J
npm install --offline --no-audit --no-fund > log 2>&1
test "$(cat installed)" = yes
test "$(npm test --silent)" = 5
npm ls > log
grep -q 'add@1.0.0' log
