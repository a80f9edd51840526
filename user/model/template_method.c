/* SPDX-License-Identifier: Apache-2.0
 *
 * Methods and attributes of Python's types. The table has all of their public names: an attribute comes before a key
 * of the same name, so a name that is not here would be taken for a key. Those without a function are not supported.
 */
#include <stdio.h>

#include "model/template_filter.h"

#define METHOD(name) static struct val name(struct run *r, struct val v, struct val *arg, const struct args *a)

static struct val want_str(struct run *r, struct val v)
{
	if (v.t == V_UNDEF)
		run_raise(r, "a string is wanted, not what is undefined");
	if (v.t != V_STR)
		run_raise(r, "a string is wanted, not a %s", val_type_name(v));
	return v;
}

/* --- str --- */

METHOD(m_upper)
{
	return text_case(r, v, 'u');
}

METHOD(m_lower)
{
	return text_case(r, v, 'l');
}

METHOD(m_capitalize)
{
	return text_case(r, v, 'c');
}

METHOD(m_title)
{
	return text_case(r, v, 't');
}

METHOD(m_swapcase)
{
	return text_case(r, v, 's');
}

METHOD(m_casefold)
{
	return text_case(r, v, 'f');
}

METHOD(m_strip)
{
	return text_strip(r, v, arg[0].t == V_MISSING ? NULL : &arg[0], 3);
}

METHOD(m_lstrip)
{
	return text_strip(r, v, arg[0].t == V_MISSING ? NULL : &arg[0], 1);
}

METHOD(m_rstrip)
{
	return text_strip(r, v, arg[0].t == V_MISSING ? NULL : &arg[0], 2);
}

METHOD(m_split)
{
	return text_split(r, v, arg[0].t == V_MISSING ? NULL : &arg[0], arg_int(r, arg[1], -1), false);
}

METHOD(m_rsplit)
{
	return text_split(r, v, arg[0].t == V_MISSING ? NULL : &arg[0], arg_int(r, arg[1], -1), true);
}

METHOD(m_splitlines)
{
	return text_lines(r, v, arg[0].t != V_MISSING && val_truth(r, arg[0]));
}

/* The part of a string that start and end (by code points, as a slice) leave. *ret_from: its start in code points;
 * -1: start is beyond the end, where not even "" is found. */
static struct val part(struct run *r, struct val v, struct val *arg, int64_t *ret_from)
{
	int64_t n, from, to;
	struct val x[2];

	for (int i = 0; i < 2; i++)
		x[i] = arg[i].t == V_MISSING ? val_of(V_NONE) : arg[i];
	*ret_from = 0;
	if (x[0].t == V_NONE && x[1].t == V_NONE)
		return v;
	n = text_len(r, v);
	from = x[0].t == V_NONE ? 0 : arg_int(r, x[0], 0);
	to = x[1].t == V_NONE ? n : arg_int(r, x[1], 0);
	from = from < 0 ? (from + n < 0 ? 0 : from + n) : from;
	to = to < 0 ? (to + n < 0 ? 0 : to + n) : to > n ? n : to;
	*ret_from = from > to ? -1 : from;
	return val_slice(r, v, &x[0], &x[1], NULL);
}

static struct val affix(struct run *r, struct val v, struct val *arg, bool end)
{
	int64_t from;
	struct val list = arg[0];

	if (list.t != V_TUPLE) {
		list = val_of(V_TUPLE);
		list.n = 1;
		list.at = &arg[0];
	}
	v = part(r, v, arg + 1, &from);
	for (uint32_t i = 0; i < list.n; i++) {
		struct val s = want_str(r, list.at[i]);

		if (from >= 0 && s.n <= v.n && memcmp(end ? v.s + v.n - s.n : v.s, s.s, s.n) == 0)
			return val_bool(true);
	}
	return val_bool(false);
}

METHOD(m_startswith)
{
	return affix(r, v, arg, false);
}

METHOD(m_endswith)
{
	return affix(r, v, arg, true);
}

static int64_t find(struct run *r, struct val v, struct val *arg, bool last)
{
	struct val what = want_str(r, arg[0]), in;
	const char *p = NULL, *q;
	int64_t from;

	in = part(r, v, arg + 1, &from);
	if (from < 0)
		return -1;
	run_step_bytes(r, in.n);
	if (!last) {
		p = text_find(val_str(in), val_str(what));
	} else if (what.n <= in.n) {
		for (q = in.s + in.n - what.n; q >= in.s && !p; q--)
			p = memcmp(q, what.s, what.n) == 0 ? q : NULL;
		run_step(r, in.n / 4);
	}
	return p ? from + text_len(r, val_strn(in.s, (size_t)(p - in.s))) : -1;
}

METHOD(m_find)
{
	return val_int(find(r, v, arg, false));
}

METHOD(m_rfind)
{
	return val_int(find(r, v, arg, true));
}

static struct val found(struct run *r, int64_t at)
{
	if (at < 0)
		run_raise(r, "substring not found");
	return val_int(at);
}

METHOD(m_index)
{
	return found(r, find(r, v, arg, false));
}

METHOD(m_rindex)
{
	return found(r, find(r, v, arg, true));
}

METHOD(m_count)
{
	struct val what = want_str(r, arg[0]), in;
	int64_t n = 0, from;
	const char *p, *end;

	in = part(r, v, arg + 1, &from);
	if (from < 0)
		return val_int(0);
	if (what.n == 0)
		return val_int(text_len(r, in) + 1);
	run_step_bytes(r, in.n);
	for (p = in.s, end = p + in.n; (p = text_find((struct str){ p, (size_t)(end - p) }, val_str(what))); n++)
		p += what.n;
	return val_int(n);
}

METHOD(m_replace)
{
	struct val to = want_str(r, arg[1]);

	if (v.f & F_MARKUP)
		to = val_escape(r, to);
	return text_replace(r, v, want_str(r, arg[0]), to, arg_int(r, arg[2], -1));
}

METHOD(m_join)
{
	struct val list, s;

	if (!(v.f & F_MARKUP))
		return text_join(r, v, arg[0]);
	list = val_to_list(r, arg[0], V_LIST);
	s = val_list(r, V_LIST, list.n);
	for (uint32_t i = 0; i < list.n; i++)
		s.at[i] = val_escape(r, val_force(r, &list.at[i]));
	s = text_join(r, v, s);
	s.f |= F_MARKUP;
	return s;
}

METHOD(m_format)
{
	return text_format(r, v, a);
}

METHOD(m_removeprefix)
{
	struct val s = want_str(r, arg[0]);

	if (s.n > v.n || memcmp(v.s, s.s, s.n) != 0)
		return v;
	v.s += s.n;
	v.n -= s.n;
	return v;
}

METHOD(m_removesuffix)
{
	struct val s = want_str(r, arg[0]);

	if (s.n && s.n <= v.n && memcmp(v.s + v.n - s.n, s.s, s.n) == 0)
		v.n -= s.n;
	return v;
}

static struct val partition(struct run *r, struct val v, struct val *arg, bool last)
{
	struct val sep = want_str(r, arg[0]), parts, t = val_list(r, V_TUPLE, 3), none = val_lit("");

	none.f |= v.f & F_MARKUP;
	sep.f = (sep.f & ~F_MARKUP) | (v.f & F_MARKUP);
	parts = text_split(r, v, &sep, 1, last);
	if (parts.n == 2) {
		t.at[0] = parts.at[0];
		t.at[1] = sep;
		t.at[2] = parts.at[1];
	} else {
		t.at[0] = last ? none : v;
		t.at[1] = none;
		t.at[2] = last ? v : none;
	}
	return t;
}

METHOD(m_partition)
{
	return partition(r, v, arg, false);
}

METHOD(m_rpartition)
{
	return partition(r, v, arg, true);
}

static struct val pad(struct run *r, struct val v, struct val *arg, char how)
{
	struct val fill = arg[1].t == V_MISSING ? val_lit(" ") : want_str(r, arg[1]);

	if (v.f & F_MARKUP)
		fill = val_escape(r, fill);
	return text_pad(r, v, arg_int(r, arg[0], 0), fill, how);
}

METHOD(m_ljust)
{
	return pad(r, v, arg, 'l');
}

METHOD(m_rjust)
{
	return pad(r, v, arg, 'r');
}

METHOD(m_center)
{
	return pad(r, v, arg, 'c');
}

METHOD(m_zfill)
{
	return text_pad(r, v, arg_int(r, arg[0], 0), val_lit("0"), 'z');
}

static struct val all_are(struct run *r, struct val v, unsigned flags)
{
	const char *p = v.s, *end = p + v.n;

	run_step_bytes(r, (size_t)v.n * 4);
	while (p < end)
		if (!(uni_flags(utf8_next(&p)) & flags))
			return val_bool(false);
	return val_bool(v.n > 0);
}

METHOD(m_isalpha)
{
	return all_are(r, v, U_ALPHA);
}

METHOD(m_isalnum)
{
	return all_are(r, v, U_ALPHA | U_DECIMAL | U_DIGIT | U_NUMERIC);
}

METHOD(m_isdecimal)
{
	return all_are(r, v, U_DECIMAL);
}

METHOD(m_isdigit)
{
	return all_are(r, v, U_DIGIT);
}

METHOD(m_isnumeric)
{
	return all_are(r, v, U_NUMERIC);
}

METHOD(m_isspace)
{
	return all_are(r, v, U_SPACE);
}

METHOD(m_isprintable)
{
	return v.n ? all_are(r, v, U_PRINTABLE) : val_bool(true);
}

METHOD(m_isascii)
{
	return val_bool(text_ascii(v));
}

METHOD(m_islower)
{
	return val_bool(test_call(r, template_test_find(STR("lower")), v, &(struct args){ 0 }));
}

METHOD(m_isupper)
{
	return val_bool(test_call(r, template_test_find(STR("upper")), v, &(struct args){ 0 }));
}

METHOD(m_istitle)
{
	const char *p = v.s, *end = p + v.n;
	bool word = false, any = false;

	while (p < end) {
		unsigned f = uni_flags(utf8_next(&p));

		if (f & (U_UPPER | U_TITLE) ? word : f & U_LOWER ? !word : false)
			return val_bool(false);
		word = f & (U_UPPER | U_TITLE | U_LOWER);
		any |= word;
	}
	return val_bool(any);
}

/* --- dict, list, tuple --- */

METHOD(m_get)
{
	struct val *x;

	if (!val_hashable(arg[0]))
		run_raise(r, "a %s cannot be a key", val_type_name(arg[0]));
	x = dict_find(r, v.dict, arg[0]);
	return x ? val_force(r, x) : arg[1].t == V_MISSING ? val_of(V_NONE) : arg[1];
}

METHOD(m_items)
{
	return (struct val){ .t = V_VIEW, .x = 'i', .dict = v.dict };
}

METHOD(m_keys)
{
	return (struct val){ .t = V_VIEW, .x = 'k', .dict = v.dict };
}

METHOD(m_values)
{
	return (struct val){ .t = V_VIEW, .x = 'v', .dict = v.dict };
}

METHOD(m_copy)
{
	return v;
}

METHOD(m_list_count)
{
	int64_t n = 0;

	run_step(r, v.n);
	for (uint32_t i = 0; i < v.n; i++)
		n += val_equal(r, val_force(r, &v.at[i]), arg[0]);
	return val_int(n);
}

METHOD(m_list_index)
{
	if (arg[1].t != V_MISSING)
		run_unsure(r, "index with a start");
	run_step(r, v.n);
	for (uint32_t i = 0; i < v.n; i++)
		if (val_equal(r, val_force(r, &v.at[i]), arg[0]))
			return val_int(i);
	run_raise(r, "the value is not in the list");
}

/* --- others --- */

METHOD(m_self)
{
	return v.t == V_BOOL ? val_int(v.i) : v;
}

METHOD(m_cycle_next)
{
	struct cycler *c = v.cycler;
	struct val now = c->items.at[c->pos];

	c->pos = (c->pos + 1) % c->items.n;
	return now;
}

METHOD(m_cycle_current)
{
	return v.cycler->items.at[v.cycler->pos];
}

METHOD(m_cycle_reset)
{
	v.cycler->pos = 0;
	return val_of(V_NONE);
}

METHOD(m_macro_name)
{
	if (v.macro->node->kind != N_MACRO)
		return val_of(V_NONE);
	return val_strn(v.macro->node->name.p, v.macro->node->name.n);
}

#define S				(1U << V_STR)
#define L				(1U << V_LIST)
#define T				(1U << V_TUPLE)
#define D				(1U << V_DICT)
#define INTS				(1U << V_INT | 1U << V_BIG | 1U << V_BOOL)
#define NUMBERS				(INTS | 1U << V_FLOAT)
#define C				(1U << V_CYCLER)
#define SAME(name, types, run)		{ name, types, { NULL, 0, 0 }, run, false, false }
#define TAKES(name, types, lo, hi, run) { name, types, { NULL, lo, hi }, run, false, false }
#define HIDDEN(name, types)		{ name, types, { NULL, 0, 0 }, NULL, true, false }
#define NOT_HERE(name, types)		{ name, types, { NULL, 0, ANY_ARGS }, NULL, false, false }
#define VALUE(name, types, run)		{ name, types, { NULL, 0, 0 }, run, false, true }

/* Sorted by name; names that are the same stand together. */
static const struct method table[] = {
	HIDDEN("append", L),
	NOT_HERE("as_integer_ratio", NUMBERS),
	NOT_HERE("bit_count", INTS),
	NOT_HERE("bit_length", INTS),
	SAME("capitalize", S, m_capitalize),
	SAME("casefold", S, m_casefold),
	TAKES("center", S, 1, 2, m_center),
	HIDDEN("clear", L | D),
	NOT_HERE("conjugate", NUMBERS),
	SAME("copy", L | D, m_copy),
	TAKES("count", S, 1, 3, m_count),
	TAKES("count", L | T, 1, 1, m_list_count),
	NOT_HERE("count", 1U << V_RANGE),
	VALUE("current", C, m_cycle_current),
	VALUE("denominator", INTS, NULL),
	NOT_HERE("encode", S),
	TAKES("endswith", S, 1, 3, m_endswith),
	NOT_HERE("escape", 0),
	NOT_HERE("expandtabs", S),
	HIDDEN("extend", L),
	TAKES("find", S, 1, 3, m_find),
	{ "format", S, { NULL, 0, ANY_ARGS }, m_format, false, false },
	NOT_HERE("format_map", S),
	NOT_HERE("from_bytes", INTS),
	NOT_HERE("fromhex", 1U << V_FLOAT),
	NOT_HERE("fromkeys", D),
	TAKES("get", D, 1, 2, m_get),
	NOT_HERE("hex", 1U << V_FLOAT),
	VALUE("imag", NUMBERS, NULL),
	TAKES("index", S, 1, 3, m_index),
	TAKES("index", L | T, 1, 3, m_list_index),
	NOT_HERE("index", 1U << V_RANGE),
	HIDDEN("insert", L),
	NOT_HERE("is_integer", NUMBERS),
	SAME("isalnum", S, m_isalnum),
	SAME("isalpha", S, m_isalpha),
	SAME("isascii", S, m_isascii),
	SAME("isdecimal", S, m_isdecimal),
	SAME("isdigit", S, m_isdigit),
	NOT_HERE("isdisjoint", 1U << V_VIEW),
	NOT_HERE("isidentifier", S),
	SAME("islower", S, m_islower),
	SAME("isnumeric", S, m_isnumeric),
	SAME("isprintable", S, m_isprintable),
	SAME("isspace", S, m_isspace),
	SAME("istitle", S, m_istitle),
	SAME("isupper", S, m_isupper),
	SAME("items", D, m_items),
	VALUE("items", C, NULL),
	TAKES("join", S, 1, 1, m_join),
	SAME("keys", D, m_keys),
	TAKES("ljust", S, 1, 2, m_ljust),
	SAME("lower", S, m_lower),
	TAKES("lstrip", S, 0, 1, m_lstrip),
	NOT_HERE("maketrans", S),
	VALUE("mapping", 1U << V_VIEW, NULL),
	VALUE("name", 1U << V_MACRO, m_macro_name),
	SAME("next", C, m_cycle_next),
	VALUE("numerator", INTS, NULL),
	TAKES("partition", S, 1, 1, m_partition),
	HIDDEN("pop", L | D),
	HIDDEN("popitem", D),
	VALUE("pos", C, NULL),
	VALUE("real", NUMBERS, m_self),
	HIDDEN("remove", L),
	TAKES("removeprefix", S, 1, 1, m_removeprefix),
	TAKES("removesuffix", S, 1, 1, m_removesuffix),
	TAKES("replace", S, 2, 3, m_replace),
	SAME("reset", C, m_cycle_reset),
	HIDDEN("reverse", L),
	TAKES("rfind", S, 1, 3, m_rfind),
	TAKES("rindex", S, 1, 3, m_rindex),
	TAKES("rjust", S, 1, 2, m_rjust),
	TAKES("rpartition", S, 1, 1, m_rpartition),
	{ "rsplit", S, { "sep,maxsplit", 0, 2 }, m_rsplit, false, false },
	TAKES("rstrip", S, 0, 1, m_rstrip),
	HIDDEN("setdefault", D),
	HIDDEN("sort", L),
	{ "split", S, { "sep,maxsplit", 0, 2 }, m_split, false, false },
	{ "splitlines", S, { "keepends", 0, 1 }, m_splitlines, false, false },
	VALUE("start", 1U << V_RANGE, NULL),
	TAKES("startswith", S, 1, 3, m_startswith),
	VALUE("step", 1U << V_RANGE, NULL),
	VALUE("stop", 1U << V_RANGE, NULL),
	TAKES("strip", S, 0, 1, m_strip),
	SAME("swapcase", S, m_swapcase),
	SAME("title", S, m_title),
	NOT_HERE("to_bytes", INTS),
	NOT_HERE("translate", S),
	HIDDEN("update", D),
	SAME("upper", S, m_upper),
	SAME("values", D, m_values),
	TAKES("zfill", S, 1, 1, m_zfill),
};
#define N_METHODS (sizeof(table) / sizeof(table[0]))

const struct method *template_method_find(struct str name)
{
	size_t lo = 0, hi = N_METHODS;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2, n = strlen(table[mid].name);
		int c = memcmp(table[mid].name, name.p, n < name.n ? n : name.n);

		if (c < 0 || (c == 0 && n < name.n))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < N_METHODS && str_eq(name, str_of(table[lo].name)) ? &table[lo] : NULL;
}

const struct method *template_method_of(const struct method *m, enum vtype t)
{
	for (const struct method *first = m; m && m < table + N_METHODS && strcmp(m->name, first->name) == 0; m++)
		if (m->types & 1U << t)
			return m;
	return NULL;
}
