# SPDX-License-Identifier: Apache-2.0
"""Random templates from a grammar: expressions over VARS, statements around them. gen(seed) is the same for the same seed."""
import random
VARS = {"s": "Hello, W\u00f6rld <b>", "e": "", "t": True, "f": False, "i": 7, "z": 0, "neg": -3, "d": 1.5, "l": [3, 1, 2],
        "ls": ["b", "A", "c"], "le": [], "m": {"b": 2, "A": 1, "items": [0], "k": None, "q": "x'y"}, "me": {},
        "msgs": [{"role": "user", "content": "hi there"}, {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1.0, "b": [None]}}}]},
                 {"role": "tool", "content": " x\n\ny "}, {"role": "user", "content": [{"type": "text", "text": "\u00e4\u20ac"}]}],
        "u": "\u00c0\u00c9\u00df \u0391\u03a3 \u01c5 \ufb01", "nl": "a\nb\r\n\n c\t", "ws": " \u2003\t x \n", "tools": [{"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {"p": {"type": "string"}}}}}]}
NAMES = list(VARS) + ["zz", "x", "y", "ns"]


class Gen:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.macros = []

    def pick(self, *a):
        return self.r.choice(a)

    def name(self):
        return self.r.choice(NAMES)

    def const(self):
        return self.pick("1", "0", "2", "-1", "1.5", "'a'", "'b'", "''", "' x '", "'role'", "true", "false", "none", "'<'", "\"it's\"", "'\\n'", "3", "'content'", "'%s'", "0.1", "'\u00e9'")

    def atom(self):
        return self.name() if self.r.random() < .65 else self.const()

    def expr(self, d=3):
        if d <= 0:
            return self.atom()
        e = lambda: self.expr(d - 1)
        k = self.r.randrange(20)
        if k < 3:
            return self.atom()
        if k == 3:
            return "%s %s %s" % (e(), self.pick("+", "-", "*", "/", "//", "%", "~", "~", "+"), e())
        if k == 4:
            return "%s %s %s" % (e(), self.pick("==", "!=", "<", ">", "<=", ">=", "in", "not in"), e())
        if k == 5:
            return "(%s %s %s)" % (e(), self.pick("and", "or"), e())
        if k == 6:
            return "not %s" % e()
        if k == 7:
            return "(%s if %s%s)" % (e(), e(), self.pick("", " else " + e()))
        if k == 8:
            return "%s.%s" % (self.name(), self.pick("role", "content", "items", "b", "k", "function", "name", "x", "upper", "keys"))
        if k == 9:
            return "%s[%s]" % (self.name(), self.pick("0", "-1", "1", "'role'", "'b'", e(), "'items'"))
        if k == 10:
            return "%s[%s:%s%s]" % (self.name(), self.pick("", "1", "-2", "0"), self.pick("", "2", "-1", "9"), self.pick("", "", ":-1", ":2"))
        if k in (11, 12, 13):
            return "%s|%s" % (self.paren(e()), self.filter(d - 1))
        if k in (14, 15):
            return "%s is %s%s" % (self.paren(e()), self.pick("", "not "), self.test(d - 1))
        if k in (16, 17):
            return "%s.%s" % (self.paren(e()), self.method(d - 1))
        if k == 18:
            return self.pick("[%s]" % ", ".join(e() for _ in range(self.r.randrange(4))), "{%s}" % ", ".join("%s: %s" % (self.const(), e()) for _ in range(self.r.randrange(3))), "(%s, %s)" % (e(), e()))
        if self.macros and self.r.random() < .6:
            m = self.r.choice(self.macros)
            return "%s(%s)" % (m, ", ".join(e() for _ in range(self.r.randrange(3))))
        return self.pick("range(%s)" % self.pick("3", "1, 4", "5, 0, -2", e()), "namespace(a=%s).a" % e(), "dict(a=%s)" % e())

    def paren(self, x):
        return x if x.isidentifier() else "(%s)" % x

    def filter(self, d):
        e = lambda: self.expr(d - 1)
        return self.pick("upper", "lower", "title", "capitalize", "trim", "length", "string", "list", "first", "last", "reverse", "join", "join(', ')", "join(%s)" % e(),
                         "tojson", "tojson(indent=2)", "tojson(ensure_ascii=true)", "tojson(sort_keys=true)", "tojson(separators=(',', ':'))", "default(%s)" % e(), "default(%s, true)" % e(), "d('')",
                         "items", "items|list", "dictsort", "dictsort(reverse=true)", "sort", "sort(reverse=true)", "unique|list", "min", "max", "sum", "abs", "int", "float", "round", "int(5)", "safe", "e", "escape",
                         "replace('a', %s)" % e(), "replace(%s, 'z')" % self.const(), "replace(' ', '_', 1)", "map('upper')|list", "map('string')|join('-')", "map(attribute='role')|list", "map(attribute='content', default='')|list", "map('length')|list",
                         "selectattr('role')|list", "selectattr('role', 'equalto', 'user')|list", "rejectattr('content', 'none')|list", "selectattr('tool_calls', 'defined')|list|length", "select|list", "select('string')|list", "reject('none')|list", "select('in', %s)|list" % e(),
                         "indent(2)", "indent(%s, first=true)" % self.pick("4", "'> '"), "batch(2)|list", "slice(2)|list", "attr('upper')", "count", "center(9)", "wordcount", "truncate(5)", "groupby('role')|list|length", "format(%s)" % e(), "map('tojson')|list", "list|tojson", "map(%s)|list" % self.pick("'int'", "'trim'", "'first'", "'default', 'q'"))

    def test(self, d):
        e = lambda: self.expr(d - 1)
        return self.pick("defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "boolean", "true", "false", "integer", "float", "odd", "even", "lower", "upper", "callable", "escaped",
                         "in %s" % self.pick("[1, 2]", "'abc'", "m", "ls"), "eq(%s)" % e(), "equalto 'a'", "ne %s" % self.atom(), "gt(%s)" % e(), "lt 3", "divisibleby 2", "divisibleby(%s)" % e(), "sameas none", "sameas true")

    def method(self, d):
        e = lambda: self.expr(d - 1)
        return self.pick("upper()", "lower()", "strip()", "strip('\\n')", "lstrip()", "rstrip()", "strip(%s)" % e(), "split()", "split(' ')", "split(%s)" % self.const(), "split('l', 1)", "rsplit(',', 1)", "splitlines()", "startswith('H')", "startswith(%s)" % e(), "endswith('>')",
                         "replace('l', 'L')", "replace(%s, %s)" % (self.const(), self.const()), "find('l')", "count('l')", "title()", "capitalize()", "join(%s)" % e(), "get('b')", "get('zz')", "get(%s, %s)" % (e(), e()), "items()", "keys()", "values()", "items()|list", "keys()|list", "copy()",
                         "isdigit()", "isalpha()", "format(%s)" % e(), "index(1)", "append(1)", "pop()", "update({})", "partition(' ')", "zfill(5)", "role", "split('l')[-1]", "split('o')[0]", "swapcase()", "removeprefix('H')", "upper")

    def text(self):
        return self.pick("text ", "\n", "  ", " a\n", "\n\n  ", "<|im_start|>", "\t", "x", "{", "}", "% ", "\r\n", "\u00e9", " - ")

    def open(self):
        return self.pick("{%", "{%", "{%-", "{%+" if self.r.random() < .3 else "{%")

    def close(self):
        return self.pick("%}", "%}", "-%}", "+%}" if self.r.random() < .3 else "%}")

    def tag(self, x):
        return "%s %s %s" % (self.open(), x, self.close())

    def out(self, d=3):
        return "%s %s %s" % (self.pick("{{", "{{", "{{-"), self.expr(d), self.pick("}}", "}}", "-}}"))

    def body(self, d, loop):
        return "".join(self.stmt(d, loop) for _ in range(self.r.randrange(1, 4)))

    def target(self):
        return self.pick("x", "y", "i", "zz", "ns.a", "x", "s")

    def stmt(self, d, loop=False):
        k = self.r.randrange(22)
        if d <= 0 or k < 5:
            return self.out(2)
        if k < 8:
            return self.text()
        b = lambda lp=loop: self.body(d - 1, lp)
        if k < 11:
            return self.tag("if " + self.expr(2)) + b() + self.pick("", self.tag("elif " + self.expr(2)) + b()) + self.pick("", self.tag("else") + b()) + self.tag("endif")
        if k < 14:
            it = self.pick("l", "ls", "msgs", "m", "m.items()", "m|dictsort", "s", "range(3)", "tools", self.paren(self.expr(2)), "l[::-1]", "ls|map('upper')", "msgs|selectattr('content')")
            tgt = self.pick("x", "x, y") if it in ("m.items()", "m|dictsort") else self.pick("x", "x", "y", "x, y" if self.r.random() < .1 else "x")
            lp = self.pick("", "", "{{ loop.%s }}" % self.pick("index", "first", "last", "index0", "length", "previtem", "nextitem", "revindex", "cycle('a', 'b')", "changed(x)", "depth"))
            return self.tag("for %s in %s%s" % (tgt, it, self.pick("", "", " if " + self.expr(1)))) + lp + b(True) + self.pick("", "", self.tag("else") + b()) + self.tag("endfor")
        if k < 17:
            t = self.target()
            pre = self.tag("set ns = namespace(a=1)") if t == "ns.a" and self.r.random() < .8 else ""
            return pre + self.pick(self.tag("set %s = %s" % (t, self.expr(2))), self.tag("set %s" % t) + b() + self.tag("endset"), self.tag("set x, y = %s, %s" % (self.expr(1), self.expr(1))))
        if k == 17:
            m = self.pick("mac", "mbc")
            self.macros.append(m)
            return self.tag("macro %s(%s)" % (m, self.pick("", "x", "x, y=1", "x, y=x, s='d'"))) + b(False) + self.pick("", "{{ varargs }}", "{{ kwargs }}", "{{ caller() }}") + self.tag("endmacro")
        if k == 18:
            return self.tag("filter " + self.pick("upper", "trim", "replace('a', 'b')", "indent(2)|upper", "length")) + b() + self.tag("endfilter")
        if k == 19:
            return self.pick(self.tag("with x = %s, q = %s" % (self.expr(1), self.expr(1))) + b() + self.tag("endwith"), self.tag("generation") + b(False) + self.tag("endgeneration"),
                             "{#%s c %s#}" % (self.pick("", "-"), self.pick("", "-")), "{% raw %}{{ x }}{% endraw %}")
        if k == 20 and self.macros:
            return self.tag("call %s(%s)" % (self.r.choice(self.macros), self.expr(1))) + b(False) + self.tag("endcall")
        if k == 21 and loop:
            return self.tag("if " + self.expr(1)) + self.tag(self.pick("break", "continue")) + self.tag("endif")
        return self.text()

    def template(self):
        return "".join(self.stmt(3) for _ in range(self.r.randrange(1, 6)))


def gen(seed):
    return Gen(seed).template()
