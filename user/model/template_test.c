/* SPDX-License-Identifier: Apache-2.0
 *
 * Tests: `x is defined`, `x is divisibleby 3`.
 */
#include "model/template_int.h"

#define TEST(name) static struct val name(struct run *r, struct val v, struct val *arg, const struct args *a)

TEST(t_defined)
{
	return val_bool(v.t != V_UNDEF);
}

TEST(t_undefined)
{
	return val_bool(v.t == V_UNDEF);
}

TEST(t_none)
{
	return val_bool(v.t == V_NONE);
}

TEST(t_boolean)
{
	return val_bool(v.t == V_BOOL);
}

TEST(t_true)
{
	return val_bool(v.t == V_BOOL && v.i);
}

TEST(t_false)
{
	return val_bool(v.t == V_BOOL && !v.i);
}

TEST(t_integer)
{
	return val_bool(v.t == V_INT || v.t == V_BIG);
}

TEST(t_float)
{
	return val_bool(v.t == V_FLOAT);
}

TEST(t_number)
{
	return val_bool(v.t >= V_BOOL && v.t <= V_FLOAT);
}

TEST(t_string)
{
	return val_bool(v.t == V_STR);
}

TEST(t_mapping)
{
	return val_bool(v.t == V_DICT);
}

TEST(t_sequence)
{
	return val_bool(v.t == V_UNDEF || (v.t >= V_STR && v.t <= V_RANGE));
}

TEST(t_iterable)
{
	return val_bool(val_iterable(v));
}

TEST(t_callable)
{
	return val_bool(v.t == V_UNDEF || (v.t >= V_LOOP && v.t <= V_METHOD) || v.t == V_JOINER);
}

TEST(t_escaped)
{
	return val_bool(v.t == V_STR && v.f & F_MARKUP);
}

/* Has it letters with a case, and all of the one? */
static struct val all_case(struct run *r, struct val v, unsigned want, unsigned against)
{
	struct val s = val_to_str(r, v);
	const char *p = s.s, *end = p + s.n;
	bool any = false;

	run_step_bytes(r, (size_t)s.n * 4);
	while (p < end) {
		unsigned f = uni_flags(utf8_next(&p));

		if (f & (against | U_TITLE))
			return val_bool(false);
		any |= f & want;
	}
	return val_bool(any);
}

TEST(t_lower)
{
	return all_case(r, v, U_LOWER, U_UPPER);
}

TEST(t_upper)
{
	return all_case(r, v, U_UPPER, U_LOWER);
}

static struct val modulo(struct run *r, struct val v, struct val by, int64_t is)
{
	if (v.t == V_STR)
		run_unsure(r, "a string as a number");
	return val_bool(val_equal(r, val_binary(r, '%', v, by), val_int(is)));
}

TEST(t_odd)
{
	return modulo(r, v, val_int(2), 1);
}

TEST(t_even)
{
	return modulo(r, v, val_int(2), 0);
}

TEST(t_divisibleby)
{
	return modulo(r, v, arg[0], 0);
}

TEST(t_sameas)
{
	if (v.t != arg[0].t)
		return val_bool(false);
	if (v.t == V_NONE)
		return val_bool(true);
	if (v.t == V_BOOL)
		return val_bool(v.i == arg[0].i);
	if (v.t == V_NS || v.t == V_LOOP || v.t == V_DICT)
		return val_bool(v.dict == arg[0].dict);
	run_unsure(r, "whether two of type %s are the same object", val_type_name(v));
}

TEST(t_in)
{
	return val_bool(val_contains(r, v, arg[0]));
}

TEST(t_eq)
{
	return val_bool(val_equal(r, v, arg[0]));
}

TEST(t_ne)
{
	return val_bool(!val_equal(r, v, arg[0]));
}

TEST(t_lt)
{
	return val_bool(val_ordered(r, 'l', v, arg[0]));
}

TEST(t_le)
{
	return val_bool(val_ordered(r, 'L', v, arg[0]));
}

TEST(t_gt)
{
	return val_bool(val_ordered(r, 'g', v, arg[0]));
}

TEST(t_ge)
{
	return val_bool(val_ordered(r, 'G', v, arg[0]));
}

TEST(t_filter)
{
	if (!val_hashable(v))
		run_raise(r, "a %s cannot be a key", val_type_name(v));
	return val_bool(v.t == V_STR && (template_filter_find(val_str(v))));
}

TEST(t_test)
{
	if (!val_hashable(v))
		run_raise(r, "a %s cannot be a key", val_type_name(v));
	return val_bool(v.t == V_STR && (template_test_find(val_str(v))));
}

const struct test *template_test_find(struct str name)
{
	static const struct test table[] = {
		{ "defined", { NULL, 0, 0 }, t_defined },
		{ "undefined", { NULL, 0, 0 }, t_undefined },
		{ "none", { NULL, 0, 0 }, t_none },
		{ "boolean", { NULL, 0, 0 }, t_boolean },
		{ "true", { NULL, 0, 0 }, t_true },
		{ "false", { NULL, 0, 0 }, t_false },
		{ "integer", { NULL, 0, 0 }, t_integer },
		{ "float", { NULL, 0, 0 }, t_float },
		{ "number", { NULL, 0, 0 }, t_number },
		{ "string", { NULL, 0, 0 }, t_string },
		{ "mapping", { NULL, 0, 0 }, t_mapping },
		{ "sequence", { NULL, 0, 0 }, t_sequence },
		{ "iterable", { NULL, 0, 0 }, t_iterable },
		{ "callable", { NULL, 0, 0 }, t_callable },
		{ "escaped", { NULL, 0, 0 }, t_escaped },
		{ "lower", { NULL, 0, 0 }, t_lower },
		{ "upper", { NULL, 0, 0 }, t_upper },
		{ "odd", { NULL, 0, 0 }, t_odd },
		{ "even", { NULL, 0, 0 }, t_even },
		{ "divisibleby", { "num", 1, 1 }, t_divisibleby },
		{ "sameas", { "other", 1, 1 }, t_sameas },
		{ "in", { "seq", 1, 1 }, t_in },
		{ "eq", { NULL, 1, 1 }, t_eq },
		{ "==", { NULL, 1, 1 }, t_eq },
		{ "equalto", { NULL, 1, 1 }, t_eq },
		{ "ne", { NULL, 1, 1 }, t_ne },
		{ "!=", { NULL, 1, 1 }, t_ne },
		{ "lt", { NULL, 1, 1 }, t_lt },
		{ "<", { NULL, 1, 1 }, t_lt },
		{ "lessthan", { NULL, 1, 1 }, t_lt },
		{ "le", { NULL, 1, 1 }, t_le },
		{ "<=", { NULL, 1, 1 }, t_le },
		{ "gt", { NULL, 1, 1 }, t_gt },
		{ ">", { NULL, 1, 1 }, t_gt },
		{ "greaterthan", { NULL, 1, 1 }, t_gt },
		{ "ge", { NULL, 1, 1 }, t_ge },
		{ ">=", { NULL, 1, 1 }, t_ge },
		{ "filter", { NULL, 0, 0 }, t_filter },
		{ "test", { NULL, 0, 0 }, t_test },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (str_eq(name, str_of(table[i].name)))
			return &table[i];
	return NULL;
}
