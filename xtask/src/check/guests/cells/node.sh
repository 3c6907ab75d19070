set -e
cat > test.js <<'J'
const { Worker, isMainThread, parentPort } = require('worker_threads');
const assert = require('assert'), fs = require('fs'), http = require('http'), crypto = require('crypto');
if (!isMainThread) {
  parentPort.postMessage([...Array(1000).keys()].reduce((a, b) => a + b));
} else {
  let hot = 0;
  for (let i = 0; i < 3e6; i++) hot = (hot * 31 + i) | 0;
  fs.writeFileSync('file', 'text');
  assert.strictEqual(fs.readFileSync('file', 'utf8'), 'text');
  assert.strictEqual(crypto.createHash('sha256').update('abc').digest('hex').slice(0, 8), 'ba7816bf');
  new Worker(__filename).once('message', (sum) => {
    assert.strictEqual(sum, 499500);
    const server = http.createServer((request, response) => response.end('answer ' + request.url));
    server.listen(0, '127.0.0.1', () => http.get({ port: server.address().port, path: '/x' }, (response) => {
      let body = '';
      response.on('data', (part) => body += part).on('end', () => {
        assert.strictEqual(body, 'answer /x');
        server.close();
        console.log(hot, 'done');
      });
    }));
  });
}
J
node test.js > out
grep -q ' done$' out
