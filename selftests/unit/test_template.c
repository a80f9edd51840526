/* SPDX-License-Identifier: Apache-2.0
 * Templates: what is printed, what fails and what is refused. The expected texts are those of jinja2 3.1.6 set up as
 * transformers does it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "base/buf.h"
#include "model/template.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

static int append(void *ctx, const char *p, size_t n)
{
	return buf_put(ctx, p, n);
}

static const char vars[] =
	"{\"s\":\"Hello, W\\u00f6rld\",\"i\":7,\"d\":1.5,\"n\":null,\"t\":true,\"e\":\"\",\"l\":[3,1,2],"
	"\"m\":{\"b\":2,\"A\":1,\"items\":[0]},\"big\":12345678901234567890123,\"one\":1.10,\"ten\":1E2,\"zero\":-0,"
	"\"twice\":{\"a\":1,\"b\":2,\"a\":3},\"msgs\":[{\"role\":\"user\",\"content\":\"hi\"},"
	"{\"role\":\"assistant\",\"content\":null}],\"sigma\":\"\\u0391\\u03a3 \\u0391\\u03a3\\u0391 \\u00df\","
	"\"ctl\":\"\\u0007\\u200b\\u007f\",\"lone\":\"\\ud800\",\"pad\":\" \\u2003x\\u200b \"}";

/* Renders into <out>, which ends with a NUL then. -1: refused. */
static int render(const char *source, const char *with, const struct template_limits *limits, struct buf *out,
		  struct template_error *err)
{
	struct template *t = template_compile(str_of(source), err);
	struct template_in in = { .variables = str_of(with), .now = 1772352000, .utc = true, .limits = limits };
	struct template_work *w = template_work_new();
	int r = -1;

	out->off = out->len = 0;
	if (t)
		r = template_render(t, w, &in, (struct template_sink){ append, out }, err);
	buf_put(out, "", 1);
	template_work_free(w);
	template_unref(t);
	return r;
}

struct pair {
	const char *source, *text;
};

static void prints(const struct pair *p, size_t n)
{
	struct buf out = { 0 };

	for (size_t i = 0; i < n; i++) {
		struct template_error err;
		int r = render(p[i].source, vars, NULL, &out, &err);

		if (r != TEMPLATE_OK || strcmp(buf_data(&out), p[i].text) != 0)
			fail_msg("%s\n  gives %d \"%s\" (%u:%u: %s)\n  not \"%s\"", p[i].source, r, buf_data(&out),
				 err.line, err.col, err.text, p[i].text);
	}
	buf_free(&out);
}

static void whitespace_is_cut_as_trim_blocks_and_lstrip_blocks_say(void **state)
{
	static const struct pair p[] = {
		{ "a\n", "a" },
		{ "a\n\n", "a\n" },
		{ "{% if t %}\nx\n{% endif %}\ny", "x\ny" },
		{ "  {% if t %}x{% endif %}", "x" },
		{ "a {% if t %}x{% endif %}", "a x" },
		{ "  {%+ if t %}x{% endif %}", "  x" },
		{ "{% if t +%}\nx{% endif %}", "\nx" },
		{ "a \n {%- if t -%} \n x{% endif %}", "ax" },
		{ "{{ i }}\nx", "7\nx" },
		{ " {{- i -}} \n x", "7x" },
		{ "  {# c #}\nx", "x" },
		{ "a {#- c -#} b", "ab" },
		{ "{% if t %}\n  {% if t %}x{% endif %}\n{% endif %}", "x" },
		{ "a\r\nb\rc", "a\nb\nc" },
		{ "{% raw %}{{ x }}{% endraw %}", "{{ x }}" },
		{ "{%- if t -%}\xe2\x80\x83x{% endif %}", "x" },
	};

	prints(p, N(p));
}

static void operators_bind_as_in_jinja(void **state)
{
	static const struct pair p[] = {
		{ "{{ 'a' + 1 ~ 2 * 3 }}", "a16" },
		{ "{{ -1|abs }} {{ -2**2 }} {{ 2**3**2 }}", "1 4 64" },
		{ "{{ 7 // -2 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 7.5 // 2 }}", "-4 -2 3.5 3.0" },
		{ "{{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }}", "True True False" },
		{ "{{ not 1 in l }} {{ 1 < 2 < 3 }}", "False True" },
		{ "{{ 1 if n }}{{ 1 if n else 2 if e else 3 }}", "3" },
		{ "{{ n or [] or 'x' }} {{ t and 'y' }}", "x y" },
		{ "{{ i is odd and true }} {{ i is divisibleby 7 }} {{ 3 is in l }}", "True True True" },
		{ "{{ s[::-1] }} {{ s[7:9] }} {{ l[-1] }} {{ l[1:] }}", "dlr\xc3\xb6W ,olleH W\xc3\xb6 2 [1, 2]" },
		{ "{{ '%s=%05.1f' % ('a', d) }} {{ '{:>4}|{}'.format('x', 1) }}", "a=001.5    x|1" },
	};

	prints(p, N(p));
}

static void values_print_as_python_prints_them(void **state)
{
	static const struct pair p[] = {
		{ "{{ l }} {{ m }} {{ n }} {{ t }} {{ zz }}", "[3, 1, 2] {'b': 2, 'A': 1, 'items': [0]} None True " },
		{ "{{ [\"it's\", 'a\"\\'', '\\n\\\\'] }}", "[\"it's\", 'a\"\\'', '\\n\\\\']" },
		{ "{{ [ctl] }}", "['\\x07\\u200b\\x7f']" },
		{ "{{ one }} {{ ten }} {{ zero }} {{ big }}", "1.1 100.0 0 12345678901234567890123" },
		{ "{{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ -0.0 }}",
		  "1e+16 1000000000000000.0 0.0001 1e-05 -0.0" },
		{ "{{ 0.1 + 0.2 }} {{ 1 / 3 }} {{ 5e-324 }} {{ 5.684341886080802e-14 }}",
		  "0.30000000000000004 0.3333333333333333 5e-324 5.684341886080802e-14" },
		{ "{{ twice }}", "{'a': 3, 'b': 2}" },
		{ "{{ range(3) }} {{ (1,) }} {{ m.keys() }}", "range(0, 3) (1,) dict_keys(['b', 'A', 'items'])" },
	};

	prints(p, N(p));
}

static void json_is_what_python_dumps(void **state)
{
	static const struct pair p[] = {
		{ "{{ m|tojson }}", "{\"b\": 2, \"A\": 1, \"items\": [0]}" },
		{ "{{ m|tojson(indent=2) }}", "{\n  \"b\": 2,\n  \"A\": 1,\n  \"items\": [\n    0\n  ]\n}" },
		{ "{{ m|tojson(ensure_ascii=False, sort_keys=True, separators=(',', ':')) }}",
		  "{\"A\":1,\"b\":2,\"items\":[0]}" },
		{ "{{ s|tojson }} {{ s|tojson(ensure_ascii=True) }}",
		  "\"Hello, W\xc3\xb6rld\" \"Hello, W\\u00f6rld\"" },
		{ "{{ ctl|tojson }} {{ '</a>'|tojson }}", "\"\\u0007\xe2\x80\x8b\x7f\" \"</a>\"" },
		{ "{{ [one, ten, big, n, t, [], {}]|tojson(indent=1) }}",
		  "[\n 1.1,\n 100.0,\n 12345678901234567890123,\n null,\n true,\n [],\n {}\n]" },
		{ "{{ '\xf0\x9f\x98\x80'|tojson(ensure_ascii=true) }}", "\"\\ud83d\\ude00\"" },
	};

	prints(p, N(p));
}

static void strings_know_unicode(void **state)
{
	static const struct pair p[] = {
		{ "{{ sigma|lower }} {{ sigma|upper }}",
		  "\xce\xb1\xcf\x82 \xce\xb1\xcf\x83\xce\xb1 \xc3\x9f \xce\x91\xce\xa3 \xce\x91\xce\xa3\xce\x91 SS" },
		{ "[{{ pad|trim }}]", "[x\xe2\x80\x8b]" },
		{ "{{ s|length }} {{ s.find('r') }} {{ s[9] }}", "12 9 r" },
		{ "{{ 'a\\x0bb\\u2028c'.splitlines() }}", "['a', 'b', 'c']" },
		{ "{{ ''.split('x') }} {{ ''.split() }} {{ ' a  b '.split(none, 1) }}", "[''] [] ['a', 'b ']" },
		{ "{{ 'xxabcx'.strip('x') }} {{ 'a,b,c'.rsplit(',', 1) }}", "abc ['a,b', 'c']" },
		{ "{{ '\\x41\\u00e9\\q' }}", "A\xc3\xa9\\q" },
	};

	prints(p, N(p));
}

static void names_live_where_jinja_puts_them(void **state)
{
	static const struct pair p[] = {
		{ "{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}", "4 2 3 1" },
		{ "{% if t %}{% set x = 5 %}{% endif %}{{ x }}", "5" },
		{ "{% for x in l %}{{ i }}{% endfor %}{% set i = 9 %}{{ i }}", "9" },
		{ "{% for x in l %}{% set i = i + x %}{{ i }} {% endfor %}", "10 8 9 " },
		{ "{% macro f() %}{{ later }}{% endmacro %}{{ f() }}{% set later = 3 %}{{ f() }}", "3" },
		{ "{% macro f(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1) }} "
		  "{{ f(b=3) }} {{ f(1, 2, 3, 4, z=5) }}",
		  "121(){} 3(){} 123(4,){'z': 5}" },
		{ "{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "3210" },
		{ "{% set ns = namespace(n=0) %}{% for x in l %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "6" },
		{ "{% set b %}x{{ i }}{% endset %}{{ b }}{% filter upper %}a{{ b }}{% endfilter %}", "x7AX7" },
		{ "{% macro f() %}<{{ caller(1) }}>{% endmacro %}{% call(a) f() %}{{ a }}{% endcall %}", "<1>" },
		{ "{% generation %}{% set g = 1 %}{{ g }}{% endgeneration %}{{ g }}", "1" },
		{ "{% with a = 1 %}{{ a }}{% endwith %}{{ a }}", "1" },
	};

	prints(p, N(p));
}

static void loops_know_their_place(void **state)
{
	static const struct pair p[] = {
		{ "{% for x in l %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem "
		  "}} "
		  "{% endfor %}",
		  "1TrueFalse1 2FalseFalse32 3FalseTrue1 " },
		{ "{% for x in l if x > 1 %}{{ loop.index }}{{ x }}{{ loop.length }} {% endfor %}", "132 222 " },
		{ "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "32" },
		{ "{% for x in l %}{{ x }}{% break %}{% endfor %}", "3" },
		{ "{% for x in zz %}a{% else %}b{% endfor %}{% for k, v in m|dictsort %}{{ k }}{% endfor %}",
		  "bAbitems" },
		{ "{% for x in [1, [2, [3]]] recursive %}{{ loop.depth }}{% if x is iterable %}{{ loop(x) }}{% endif %}"
		  "{% endfor %}",
		  "11223" },
	};

	prints(p, N(p));
}

static void filters_and_tests_take_keywords(void **state)
{
	static const struct pair p[] = {
		{ "{{ l|sort(reverse=true) }} {{ l|join(', ') }} {{ l|sum }} {{ l|min }}", "[3, 2, 1] 3, 1, 2 6 1" },
		{ "{{ msgs|map(attribute='role')|list }} {{ msgs|selectattr('content', 'none')|list|length }}",
		  "['user', 'assistant'] 1" },
		{ "{{ l|select('gt', 1)|list }} {{ ['a', 'A', 'b']|unique|list }}", "[3, 2] ['a', 'b']" },
		{ "{{ n|default('x') }} {{ n|default('x', true) }} {{ zz|default('y') }} {{ e|d('z', boolean=true) }}",
		  "None x y z" },
		{ "{{ 'a\\n\\nb'|indent(2) }} {{ 'a'|indent(2, first=true) }}", "a\n\n  b   a" },
		{ "{{ '12.7'|int }} {{ 'x'|int(5) }} {{ 2.5|round }} {{ 42.55|round(1, 'floor') }}", "12 5 2.0 42.5" },
		{ "{{ ('<'|safe) + '<' }} {{ ('<'|safe) ~ '<' }}", "<&lt; <<" },
		{ "{{ m['items'] }} {{ m.items is callable }} {{ {}['items'] is defined }}", "[0] True True" },
		{ "{{ m.get('zz') }} {{ m.get('zz', 1) }} {{ n.x is defined }}", "None 1 False" },
		{ "{{ zz is iterable }} {{ zz is sequence }} {{ n is iterable }} {{ t is number }} {{ 1 is true }}",
		  "True True False True False" },
		{ "{{ strftime_now('%Y-%m-%d') }}", "2026-03-01" },
	};

	prints(p, N(p));
}

static void what_raises_in_python_fails(void **state)
{
	static const char *const sources[] = {
		"{{ raise_exception('no') }}",
		"{{ zz.x }}",
		"{{ zz + 1 }}",
		"{{ n.x.y }}",
		"{{ 'a' + 1 }}",
		"{{ 'a' + none }}",
		"{{ 1 < 'a' }}",
		"{{ n|length }}",
		"{% for x in n %}{% endfor %}",
		"{% for a, b in [[1]] %}{% endfor %}",
		"{{ zz|tojson }}",
		"{{ l.append(1) }}",
		"{{ 1 in 'a' }}",
		"{{ 1 / 0 }}",
		"{{ [1, 'a']|sort }}",
		"{{ range(100001) }}",
		"{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}",
		"{% set m.x = 1 %}",
		"{{ (l|map('upper'))|tojson }}",
		"{{ '%s %s' % ('a',) }}",
		"{{ nofunction() }}",
	};
	struct template_error err;
	struct buf out = { 0 };

	for (size_t i = 0; i < N(sources); i++)
		if (render(sources[i], vars, NULL, &out, &err) != TEMPLATE_RAISED || !err.text[0])
			fail_msg("%s gives \"%s\" %s", sources[i], buf_data(&out), err.text);
	buf_free(&out);
}

static void what_cannot_be_told_exactly_is_not_printed(void **state)
{
	static const char *const sources[] = {
		"{{ s.upper }}",
		"{{ l|map('upper') }}",
		"{{ big + 1 }}",
		"{{ lone }}",
		"{{ 9223372036854775807 + 1 }}",
		"{{ raise_exception }}",
		"{{ strftime_now('%f') }}",
	};
	struct template_error err;
	struct buf out = { 0 };

	for (size_t i = 0; i < N(sources); i++)
		if (render(sources[i], vars, NULL, &out, &err) != TEMPLATE_UNSURE)
			fail_msg("%s gives \"%s\" %s", sources[i], buf_data(&out), err.text);
	buf_free(&out);
}

static void unknown_constructs_are_refused_with_their_place(void **state)
{
	static const struct {
		const char *source;
		unsigned line, col;
	} p[] = {
		{ "{% if false %}{{ x|nofilter }}{% endif %}", 1, 20 },
		{ "a\n{% if false %}\n {{ x is notest }}{% endif %}", 3, 10 },
		{ "{{ x|tojson(nokey=1) }}", 1, 6 },
		{ "{{ x|upper(1) }}", 1, 6 },
		{ "{{ x|map('nofilter')|list }}", 1, 10 },
		{ "{% include 'x' %}", 1, 4 },
		{ "{% do x %}", 1, 4 },
		{ "\xc3\xa9{% block x %}{% endblock %}", 1, 5 },
		{ "{{ x", 1, 1 },
		{ "{% if x %}", 1, 10 },
		{ "{% break %}", 1, 4 },
		{ "{{ x.__class__ }}", 1, 5 },
		{ "{{ (1 }}", 1, 7 },
		{ "{{ '\\N{DASH}' }}", 1, 6 },
		{ "{% for loop in x %}{% set loop = 1 %}{% endfor %}", 1, 8 },
		{ "{{ self }}", 1, 4 },
	};
	struct template_error err;
	struct buf out = { 0 };

	for (size_t i = 0; i < N(p); i++) {
		int r = render(p[i].source, vars, NULL, &out, &err);

		if (r != -1 || err.line != p[i].line || err.col != p[i].col)
			fail_msg("%s: %d %u:%u %s", p[i].source, r, err.line, err.col, err.text);
	}
	buf_free(&out);
}

static void hostile_templates_end(void **state)
{
	static const char *const sources[] = {
		"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
		"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
		"{{ 'x' * 1000000000 }}",
		"{% for a in range(9999) %}{{ 'x' * 100000 }}{% endfor %}",
		"{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
		"{% set ns = namespace(x=[]) %}{% for a in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
		"{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
		"{{ '%99999999s' % 1 }}",
	};
	struct template_limits limits = { .steps = 1 << 20, .output = 1 << 20, .memory = 16 << 20 };
	struct template_error err;
	struct buf out = { 0 };

	for (size_t i = 0; i < N(sources); i++)
		if (render(sources[i], vars, &limits, &out, &err) != TEMPLATE_LIMIT)
			fail_msg("%s gives \"%.100s\" %s", sources[i], buf_data(&out), err.text);
	buf_free(&out);
}

static void deep_templates_are_refused(void **state)
{
	static const char *const open[] = { "(", "[", "not ", "-", "{% if x %}", "a + " };
	struct template_error err;
	struct buf source = { 0 }, out = { 0 };

	for (size_t i = 0; i < N(open); i++) {
		bool tag = open[i][0] == '{';

		source.off = source.len = 0;
		buf_puts(&source, tag ? "" : "{{ ");
		for (int k = 0; k < 5000; k++)
			buf_puts(&source, open[i]);
		buf_puts(&source, tag ? "" : "1 }}");
		buf_put(&source, "", 1);
		assert_int_equal(render(buf_data(&source), "{}", NULL, &out, &err), -1);
	}
	buf_free(&source);
	buf_free(&out);
}

static int no_more(void *ctx, const char *p, size_t n)
{
	return -1;
}

static void a_sink_that_gives_up_ends_it(void **state)
{
	struct template_error err;
	struct template *t = template_compile(STR("{{ 'x' * 100000 }}"), &err);
	struct template_work *w = template_work_new();
	struct template_in in = { .variables = STR("{}") };

	assert_int_equal(template_render(t, w, &in, (struct template_sink){ no_more, NULL }, &err), TEMPLATE_SINK);
	template_work_free(w);
	template_unref(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whitespace_is_cut_as_trim_blocks_and_lstrip_blocks_say),
		cmocka_unit_test(operators_bind_as_in_jinja),
		cmocka_unit_test(values_print_as_python_prints_them),
		cmocka_unit_test(json_is_what_python_dumps),
		cmocka_unit_test(strings_know_unicode),
		cmocka_unit_test(names_live_where_jinja_puts_them),
		cmocka_unit_test(loops_know_their_place),
		cmocka_unit_test(filters_and_tests_take_keywords),
		cmocka_unit_test(what_raises_in_python_fails),
		cmocka_unit_test(what_cannot_be_told_exactly_is_not_printed),
		cmocka_unit_test(unknown_constructs_are_refused_with_their_place),
		cmocka_unit_test(hostile_templates_end),
		cmocka_unit_test(deep_templates_are_refused),
		cmocka_unit_test(a_sink_that_gives_up_ends_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
