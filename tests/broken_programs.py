"""Small programs with one fault each, as `main.py` and what it imports."""

from __future__ import annotations

# The files; words that the diagnosis must hold; what `main.py` prints once the edits are made.
FIXED: dict[str, tuple[dict[str, str], str, str]] = {
    "NameError: a misspelt local": (
        {"main.py": "def pay(customer):\n    print(custmer.upper())\n\n\npay('ada')\n"},
        "misspelling of `customer`",
        "ADA\n",
    ),
    "NameError: twice in one function": (
        {
            "main.py": (
                "def add(values):\n    total = 0\n    for value in values:\n        total += value\n"
                "    print(totl)\n    return totl\n\n\nadd([1, 2])\n"
            )
        },
        "misspelling of `total`",
        "3\n",
    ),
    "NameError: a misspelt builtin": ({"main.py": "print(sorteed([2, 1]))\n"}, "misspelling of `sorted`", "[1, 2]\n"),
    "NameError: inside a comprehension": (
        {"main.py": "def sums(orders):\n    return [numbr + 1 for number in orders]\n\n\nprint(sums([1]))\n"},
        "misspelling of `number`",
        "[2]\n",
    ),
    "NameError: a standard module that is not imported": (
        {
            "main.py": (
                '"""Say it."""\n\nimport sys\n\n\ndef say():\n'
                '    print(json.dumps({"a": 1}), file=sys.stdout)\n\n\nsay()\n'
            )
        },
        "does not import it",
        '{"a": 1}\n',
    ),
    "NameError: a standard module, no imports at all": (
        {"main.py": "def root(x):\n    return math.sqrt(x)\n\n\nprint(root(4))\n"},
        "does not import it",
        "2.0\n",
    ),
    "NameError: a class that another file imports": (
        {
            "main.py": "from __future__ import annotations\nfrom other import one\n\nprint(one() + Decimal('2'))\n",
            "other.py": "from decimal import Decimal\n\n\ndef one():\n    return Decimal('1')\n",
        },
        "from decimal import Decimal",
        "3\n",
    ),
    "ImportError: a name spelt otherwise in the module": (
        {
            "main.py": "from shop.tax import calculate_taxs_for\n\nprint(calculate_taxs_for(100))\n",
            "shop/__init__.py": "",
            "shop/tax.py": "def calculate_taxes_for(net):\n    return net // 5\n",
        },
        "which shop/tax.py calls `calculate_taxes_for`",
        "20\n",
    ),
    "ImportError: under another name": (
        {
            "main.py": "from tax import (\n    compute_tex as tax,\n)\n\nprint(tax(100))\n",
            "tax.py": "def compute_text(net):\n    return net\n",
        },
        "which tax.py calls `compute_text`",
        "100\n",
    ),
    "ModuleNotFoundError: a module spelt otherwise": (
        {
            "main.py": "from shop.modles import ORDER\n\nprint(ORDER)\n",
            "shop/__init__.py": "",
            "shop/models.py": "ORDER = 1\n",
        },
        "the workspace's module is called `shop.models`",
        "1\n",
    ),
    "AttributeError: a class of another module": (
        {
            "main.py": (
                "from models import Order\n\n\ndef show(order):\n"
                "    return f'{order.id}: {order.cancelled}'\n\n\nprint(show(Order(7)))\n"
            ),
            "models.py": (
                "class Order:\n    def __init__(self, id):\n        self.id = id\n        self.canceled = False\n"
            ),
        },
        "calls it `canceled`",
        "7: False\n",
    ),
    "AttributeError: twice on a line, told apart by the underline": (
        {
            "main.py": (
                "from dataclasses import dataclass\n\n\n@dataclass\nclass Order:\n    address: str\n\n\n"
                "@dataclass\nclass Person:\n    adress: str\n\n\n"
                "def same(order, person):\n    return order.adress == person.adress\n\n\n"
                "print(same(Order('x'), Person('x')))\n"
            )
        },
        "calls it `address`",
        "True\n",
    ),
    "AttributeError: a builtin type": (
        {"main.py": "names = ['b']\nnames.appendd('a')\nprint(names)\n"},
        "misspelling of `append`",
        "['b', 'a']\n",
    ),
    "AttributeError: a module": (
        {"main.py": "import shop\n\nprint(shop.discuont(5))\n", "shop.py": "def discount(x):\n    return x\n"},
        "calls it `discount`",
        "5\n",
    ),
    "AttributeError: inherited from a sent class": (
        {
            "main.py": "from base import Base\n\n\nclass Child(Base):\n    pass\n\n\nprint(Child().describ_it())\n",
            "base.py": "class Base:\n    def describe_it(self):\n        return 'base'\n",
        },
        "calls it `describe_it`",
        "base\n",
    ),
    "KeyError: a dict that is written out": (
        {
            "main.py": (
                "RATES = {\n    'standard': 20,\n    'reduced': 7,\n}\n\n\ndef rate():\n"
                "    return RATES['standrad']\n\n\nprint(rate())\n"
            )
        },
        "the dict calls it 'standard'",
        "20\n",
    ),
    "KeyError: a dict that a function returns": (
        {
            "main.py": (
                "from store import load\n\n\ndef show():\n    user = load()\n    return user['adress']\n\n\n"
                "print(show())\n"
            ),
            "store.py": "def load():\n    return {'name': 'Ada', 'address': 'London'}\n",
        },
        "the dict calls it 'address'",
        "London\n",
    ),
    "IndexError: a loop that goes one too far": (
        {
            "main.py": (
                "def show(names):\n    for i in range(len(names) + 1):\n        print(names[i])\n\n\nshow(['a', 'b'])\n"
            )
        },
        "one turn too far",
        "a\nb\n",
    ),
    "TypeError: a keyword of another name": (
        {
            "main.py": (
                "from mail import send\n\nprint(\n    send(\n        'hello',\n        recipeint='ada',\n    )\n)\n"
            ),
            "mail.py": "def send(text, *, recipient, copy=None):\n    return f'{recipient}: {text}'\n",
        },
        "calls that parameter `recipient`",
        "ada: hello\n",
    ),
    "TypeError: a field of a dataclass": (
        {
            "main.py": "from models import Line\n\nprint(Line(name='tea', quantitty=2).quantity)\n",
            "models.py": (
                "from dataclasses import dataclass\n\n\n@dataclass\nclass Line:\n    name: str\n    quantity: int\n"
            ),
        },
        "calls that parameter `quantity`",
        "2\n",
    ),
    "TypeError: a method without self": (
        {
            "main.py": (
                "class Cart:\n    items = (1, 2)\n\n    def total():\n        return sum(self.items)\n\n\n"
                "print(Cart().total())\n"
            )
        },
        "lacks the parameter `self`",
        "3\n",
    ),
    "UnboundLocalError: a counter of the module": (
        {
            "main.py": (
                'count = 0\n\n\ndef hit():\n    """Count."""\n    count += 1\n    return count\n\n\nprint(hit())\n'
            )
        },
        "without declaring it `global`",
        "1\n",
    ),
    "UnboundLocalError: a counter of the function around": (
        {
            "main.py": (
                "def counter():\n    count = 0\n\n    def hit():\n        count += 1\n"
                "        return count\n\n    return hit\n\n\nprint(counter()())\n"
            )
        },
        "without declaring it `nonlocal`",
        "1\n",
    ),
    "JSONDecodeError: a file that was sent": (
        {
            "main.py": "import json\n\nwith open('rates.json') as file:\n    print(json.load(file)['a'])\n",
            "rates.json": '{\n  "a": 1,\n  "b": [1, 2],\n}\n',
        },
        "rates.json is not JSON",
        "1\n",
    ),
}


# The files; words that the diagnosis must hold. The code proves no edit, so none may be offered.
EXPLAINED: dict[str, tuple[dict[str, str], str]] = {
    "two names are as close": ({"main.py": "totals = 1\ntotal = 2\nprint(totl)\n"}, "does not say which is meant"),
    "singular and plural are two things": (
        {"main.py": "def f(items):\n    return item\n\n\nf([1])\n"},
        "does not say which is meant",
    ),
    "a class is not its instance": ({"main.py": "class Order:\n    pass\n\n\nprint(order)\n"}, "bound nowhere"),
    "what a star import brings is not known": (
        {"main.py": "from other import *\n\ncustomer = 1\nprint(custmer)\n", "other.py": "x = 1\n"},
        "with `*`",
    ),
    "a variable may be called like a module": (
        {"main.py": "def f():\n    return email.lower()\n\n\nf()\n"},
        "do not settle which",
    ),
    "a name that is defined further down": ({"main.py": "run()\n\n\ndef run():\n    pass\n"}, "had not run yet"),
    "a module that nobody has": ({"main.py": "import surely_not_installed_anywhere\n"}, "has no module"),
    "a library's module under its distribution's name": ({"main.py": "import bs4x, bs4y\n"}, "not installed"),
    "modules that import each other": (
        {
            "main.py": "import a\n",
            "a.py": "from b import g\n\n\ndef f():\n    pass\n",
            "b.py": "from a import f\n\n\ndef g():\n    pass\n",
        },
        "import each other",
    ),
    "a class with a base that was not sent": (
        {
            "main.py": (
                "import threading\n\n\nclass Job(threading.Thread):\n    finished_at = 1\n\n\nprint(Job().finishd_at)\n"
            )
        },
        "more than the sent code shows",
    ),
    "a class with dynamic attributes": (
        {
            "main.py": (
                "class Row:\n    def __init__(self):\n        self.customer = 1\n\n"
                "    def __getattr__(self, name):\n        raise AttributeError(\"'Row' object has no "
                "attribute 'custmer'\")\n\n\nprint(Row().custmer)\n"
            )
        },
        "which has no `custmer`",
    ),
    "two classes of one name": (
        {
            "main.py": "from a import Order\n\nprint(Order().totl)\n",
            "a.py": "class Order:\n    total = 1\n",
            "b.py": "class Order:\n    totle = 1\n",
        },
        "2 classes of that name",
    ),
    "None from a function that may return nothing": (
        {
            "main.py": (
                "def find(name):\n    if name == 'ada':\n        return name\n    return None\n\n\n"
                "def show(name):\n    user = find(name)\n    return user.upper()\n\n\nshow('bob')\n"
            )
        },
        "`find` returns None on line 4",
    ),
    "None from a method that changes its object": (
        {"main.py": "rows = [2, 1].sort()\nprint(rows.copy())\n"},
        "changes its object",
    ),
    "None that is indexed": (
        {"main.py": "import re\n\n\ndef f(text):\n    found = re.match('a', text)\n    return found[0]\n\n\nf('b')\n"},
        "`found` is None",
    ),
    "a dict asked by attribute": (
        {"main.py": "order = {'total': 1}\nprint(order.total)\n"},
        'asked by key: `["total"]`',
    ),
    "a key decided at run time": (
        {"main.py": "RATES = {'DE': 19}\n\n\ndef rate(country):\n    return RATES[country]\n\n\nrate('GB')\n"},
        "'GB' is not one of them",
    ),
    "a dict that is changed elsewhere": (
        {
            "main.py": (
                "RATES = {'standard': 1}\nRATES.update(other=2)\n\n\ndef f():\n    return RATES['standrad']\n\n\nf()\n"
            )
        },
        "spells keys 'standard'",
    ),
    "two keys as close": (
        {"main.py": "R = {'standard': 1, 'standards': 2}\nprint(R['standad'])\n"},
        "without that key",
    ),
    "a variable of the environment": (
        {"main.py": "import os\n\nprint(os.environ['SHOP_TOKEN'])\n"},
        "environment variable 'SHOP_TOKEN'",
    ),
    "a list that is empty": ({"main.py": "def first(rows):\n    return rows[0]\n\n\nfirst([])\n"}, "has no element 0"),
    "a command-line argument": ({"main.py": "import sys\n\nprint(sys.argv[1])\n"}, "fewer than 1 arguments"),
    "a text that splits into less": (
        {"main.py": "def host(text):\n    return text.split(':')[1]\n\n\nhost('a')\n"},
        "fewer parts",
    ),
    "a loop from one": (
        {"main.py": "def f(xs):\n    for i in range(1, len(xs) + 1):\n        xs[i]\n\n\nf([1])\n"},
        "not smaller than the length",
    ),
    "pop from nothing": ({"main.py": "queue = []\nqueue.pop()\n"}, "empty"),
    "an argument that is missing": (
        {"main.py": "from tax import tax\n\nprint(tax(1))\n", "tax.py": "def tax(net, rate):\n    return net * rate\n"},
        "takes `net`, `rate`",
    ),
    "an argument too many": (
        {"main.py": "def f(a):\n    return a\n\n\nf(1, 2)\n"},
        "passes 2 arguments by place where it takes 1",
    ),
    "an argument given twice": ({"main.py": "def f(a, b):\n    return a\n\n\nf(1, a=2)\n"}, "passes `a` twice"),
    "a keyword with another unit": (
        {"main.py": "def f(timeout_s=1):\n    return 1\n\n\nf(timeout_ms=2)\n"},
        "does not settle which",
    ),
    "a keyword into a function that takes any": (
        {
            "main.py": (
                "def g(*, recipient):\n    return 1\n\n\ndef f(**rest):\n    return g(**rest)\n\n\nf(recipeint=1)\n"
            )
        },
        "does not take",
    ),
    "a method called on its class": (
        {"main.py": "class A:\n    def f(self):\n        return 1\n\n\nA.f()\n"},
        "instead of an instance",
    ),
    "a division by a length": (
        {"main.py": "def mean(xs):\n    return sum(xs) / len(xs)\n\n\nmean([])\n"},
        "`xs` is empty",
    ),
    "a division by a sum": (
        {"main.py": "def f(xs):\n    whole = sum(xs)\n    return [x / whole for x in xs]\n\n\nf([0])\n"},
        "`whole` is zero",
    ),
    "a local in a branch not taken": (
        {"main.py": "def f(ok):\n    if ok:\n        text = 'yes'\n    return text\n\n\nf(False)\n"},
        "on a path on which it was never assigned",
    ),
    "a file that is nowhere": ({"main.py": "open('nowhere.txt')\n"}, "looked up in the directory"),
    "an absolute path": ({"main.py": "open('/surely/not/there.txt')\n"}, "does not exist on the machine"),
    "a command that is not installed": (
        {"main.py": "import subprocess\n\nsubprocess.run(['surely-not-installed'])\n"},
        "not on PATH",
    ),
    "JSON that is empty": ({"main.py": "import json\n\njson.loads('')\n"}, "empty"),
    "JSON by the line": ({"main.py": "import json\n\njson.loads('{}\\n{}')\n"}, "line by line"),
    "an error inside a library": ({"main.py": "import textwrap\n\ntextwrap.wrap(None)\n"}, "raised inside"),
    "an exception that no rule covers": ({"main.py": "raise ValueError('no')\n"}, "only the place is certain"),
}
