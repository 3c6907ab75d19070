"""Objects, dictionaries, strings, sorting and JSON."""
import json
import re


class Node:
    def __init__(self, key):
        self.key = key
        self.left = self.right = None

    def insert(self, key):
        node = self
        while True:
            side = "left" if key < node.key else "right"
            below = getattr(node, side)
            if below is None:
                setattr(node, side, Node(key))
                return
            node = below

    def walk(self):
        if self.left:
            yield from self.left.walk()
        yield self.key
        if self.right:
            yield from self.right.walk()


def numbers(count, state=42):
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2147483648
        yield state


tree = Node(1 << 30)
for number in numbers(1200):
    tree.insert(number)
ordered = list(tree.walk())
assert ordered == sorted(ordered)
records = [{"id": n, "name": f"record {n % 97}", "values": [n % 7, n / 3]} for n in ordered]
text = json.dumps(records, sort_keys=True)
again = json.loads(text)
by_name = {}
for record in again:
    by_name.setdefault(record["name"], []).append(record["id"])
digits = len(re.findall(r"\d+", text))
print(len(again), len(text), digits, sum(max(ids) for ids in by_name.values()))
