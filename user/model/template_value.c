/* SPDX-License-Identifier: Apache-2.0
 *
 * What values are to Python: true or false, equal, ordered, hashable; their items and attributes.
 */
#include <math.h>

#include "model/template_int.h"

struct val undef_name(struct str name)
{
	return (struct val){ .t = V_UNDEF, .n = (uint32_t)name.n, .s = name.p };
}

struct val undef_attr(struct str name)
{
	return (struct val){ .t = V_UNDEF, .f = F_ATTR, .n = (uint32_t)name.n, .s = name.p };
}

struct val undef_hint(const char *message)
{
	return (struct val){ .t = V_UNDEF, .f = F_HINT, .n = (uint32_t)strlen(message), .s = message };
}

void undef_used(struct run *r, struct val v)
{
	if (v.f & F_HINT)
		run_raise(r, "%s", v.s);
	if (v.f & F_UNSAFE)
		run_raise(r, "access to attribute '%.*s' is unsafe", (int)v.n, v.s);
	run_raise(r, v.f & F_ATTR ? "there is no attribute '%.*s'" : "'%.*s' is undefined", (int)v.n, v.s);
}

const char *val_type_name(struct val v)
{
	static const char *const names[V_TYPES] = { "missing",	 "undefined", "none",	   "bool",  "int",   "int",
						    "float",	 "str",	      "list",	   "tuple", "dict",  "range",
						    "dict view", "generator", "namespace", "loop",  "macro", "function",
						    "method",	 "cycler",    "joiner" };

	return names[v.t];
}

void string_without_text(struct run *r)
{
	run_unsure(r, "half of a surrogate pair in a string");
}

int64_t val_len(struct run *r, struct val v)
{
	switch (v.t) {
	case V_UNDEF:
		return 0;
	case V_STR:
		return text_len(r, v);
	case V_LIST:
	case V_TUPLE:
		return v.n;
	case V_DICT:
	case V_VIEW:
		return v.dict->n;
	case V_RANGE:
		return v.range->n;
	case V_LOOP:
		return loop_length(r, v.loop);
	default:
		run_raise(r, "a %s has no length", val_type_name(v));
	}
}

bool val_has_len(struct val v)
{
	return v.t == V_UNDEF || (v.t >= V_STR && v.t <= V_VIEW) || v.t == V_LOOP;
}

bool val_truth(struct run *r, struct val v)
{
	switch (v.t) {
	case V_MISSING:
	case V_UNDEF:
	case V_NONE:
		return false;
	case V_BOOL:
	case V_INT:
		return v.i != 0;
	case V_FLOAT:
		return v.d != 0;
	case V_STR:
	case V_LIST:
	case V_TUPLE:
		return v.n != 0;
	case V_DICT:
	case V_VIEW:
		return v.dict->n != 0;
	case V_RANGE:
		return v.range->n != 0;
	default:
		return true;
	}
}

struct val val_list(struct run *r, enum vtype t, size_t n)
{
	struct val v = val_of(t);

	if (n > UINT32_MAX / sizeof(struct val))
		run_fail(r, TEMPLATE_LIMIT, "a list is too long");
	run_step(r, n / 4);
	v.n = (uint32_t)n;
	v.at = run_get(r, (n ? n : 1) * sizeof(struct val));
	return v;
}

static void deeper(struct run *r)
{
	if (++r->depth > RUN_DEPTH)
		run_fail(r, TEMPLATE_LIMIT, "values nested too deep");
	run_step(r, 1);
}

static bool is_number(struct val v)
{
	return v.t >= V_BOOL && v.t <= V_FLOAT;
}

static bool equal_ranges(const struct range *a, const struct range *b)
{
	return a->n == b->n && (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

static bool equal_dicts(struct run *r, const struct dict *a, const struct dict *b)
{
	if (a->n != b->n)
		return false;
	for (uint32_t i = 0; i < a->n; i++) {
		struct val *other = dict_find(r, b, a->at[i].k);

		if (!other || !val_equal(r, val_force(r, &a->at[i].v), val_force(r, other)))
			return false;
	}
	return true;
}

static bool equal_lists(struct run *r, struct val a, struct val b)
{
	if (a.n != b.n)
		return false;
	if (a.at == b.at)
		return true; /* Python looks at identity first, too */
	for (uint32_t i = 0; i < a.n; i++)
		if (!val_equal(r, val_force(r, &a.at[i]), val_force(r, &b.at[i])))
			return false;
	return true;
}

bool val_equal(struct run *r, struct val a, struct val b)
{
	bool same = false;

	if (is_number(a) && is_number(b))
		return number_compare(a, b) == 0;
	if (a.t != b.t)
		return false;
	if (a.t == V_STR) {
		run_step_bytes(r, a.n == b.n ? a.n : 0);
		return a.n == b.n && memcmp(a.s, b.s, a.n) == 0;
	}
	deeper(r);
	switch (a.t) {
	case V_UNDEF:
	case V_NONE:
		same = true;
		break;
	case V_LIST:
	case V_TUPLE:
		same = equal_lists(r, a, b);
		break;
	case V_DICT:
		same = a.dict == b.dict || equal_dicts(r, a.dict, b.dict);
		break;
	case V_RANGE:
		same = equal_ranges(a.range, b.range);
		break;
	case V_VIEW:
		run_unsure(r, "views of a dict are compared");
	case V_METHOD:
		run_unsure(r, "methods are compared");
	default:
		same = a.dict == b.dict; /* the same thing */
	}
	r->depth--;
	return same;
}

static bool order_ok(char op, int c)
{
	return c != 2 && (op == 'l' ? c < 0 : op == 'L' ? c <= 0 : op == 'g' ? c > 0 : c >= 0);
}

bool val_ordered(struct run *r, char op, struct val a, struct val b)
{
	uint32_t n = a.n < b.n ? a.n : b.n, i;
	int c;

	if (a.t == V_UNDEF || b.t == V_UNDEF)
		undef_used(r, a.t == V_UNDEF ? a : b);
	if (is_number(a) && is_number(b))
		return order_ok(op, number_compare(a, b));
	if (a.t == V_STR && b.t == V_STR) {
		run_step_bytes(r, n);
		c = memcmp(a.s, b.s, n);
		return order_ok(op, c ? c : a.n < b.n ? -1 : a.n > b.n);
	}
	if (a.t != b.t || (a.t != V_LIST && a.t != V_TUPLE))
		run_raise(r, "a %s and a %s have no order", val_type_name(a), val_type_name(b));
	deeper(r);
	for (i = 0; i < n; i++)
		if (!val_equal(r, val_force(r, &a.at[i]), val_force(r, &b.at[i])))
			break;
	c = i < n ? val_ordered(r, op, a.at[i], b.at[i]) : order_ok(op, a.n < b.n ? -1 : a.n > b.n);
	r->depth--;
	return c;
}

bool val_hashable(struct val v)
{
	if (v.t == V_TUPLE)
		for (uint32_t i = 0; i < v.n; i++)
			if (!val_hashable(v.at[i]))
				return false;
	return v.t != V_LIST && v.t != V_DICT && v.t != V_VIEW;
}

static void must_hash(struct run *r, struct val v)
{
	if (!val_hashable(v))
		run_raise(r, "a %s cannot be a key", val_type_name(v));
}

bool val_contains(struct run *r, struct val what, struct val in)
{
	struct iter it;
	struct val v;

	if (in.t == V_STR) {
		if (what.t != V_STR)
			run_raise(r, "'in' a string wants a string, not a %s", val_type_name(what));
		run_step_bytes(r, in.n);
		return text_find(val_str(in), val_str(what)) != NULL;
	}
	if (in.t == V_DICT || (in.t == V_VIEW && in.x == 'k')) {
		must_hash(r, what);
		return dict_find(r, in.dict, what) != NULL;
	}
	if (!val_iterable(in) || in.t == V_LOOP)
		run_raise(r, "a %s is no container", val_type_name(in));
	for (it = iter_new(r, in); iter_next(r, &it, &v);)
		if (val_equal(r, v, what))
			return true;
	return false;
}

/* --- items and attributes --- */

struct val val_item_at(struct run *r, struct val of, int64_t i)
{
	if (of.t == V_RANGE)
		return val_int(of.range->start + i * of.range->step);
	if (of.t == V_STR) {
		size_t at = text_offset(r, of, i), end = at + text_offset(r,
									  (struct val){ .t = V_STR,
											.f = of.f & F_ASCII,
											.n = of.n - (uint32_t)at,
											.s = of.s + at },
									  1);

		return (struct val){ .t = V_STR, .f = of.f, .n = (uint32_t)(end - at), .s = of.s + at };
	}
	return val_force(r, &of.at[i]);
}

static bool is_sequence(struct val v)
{
	return v.t == V_STR || v.t == V_LIST || v.t == V_TUPLE || v.t == V_RANGE;
}

static struct val bound(struct run *r, struct val self, const struct method *m, struct str name)
{
	struct bound *b;

	if (m->changes) {
		struct val v = undef_attr(name);

		v.f |= F_UNSAFE;
		return v;
	}
	if (m->value)
		return m->run(r, self, NULL, NULL);
	b = run_get(r, sizeof(*b));
	*b = (struct bound){ self, m };
	return (struct val){ .t = V_METHOD, .bound = b };
}

/* An attribute that is there, as Python's getattr finds it. */
static bool own_attr(struct run *r, struct val of, struct str name, const struct method *m, struct val *ret)
{
	struct val *v;

	if (of.t == V_UNDEF)
		undef_used(r, of);
	if (of.t == V_NS) {
		v = dict_find_str(r, of.dict, name);
		if (!v)
			return false;
		*ret = val_force(r, v);
		if (name.n && name.p[0] == '_') {
			*ret = undef_attr(name);
			ret->f |= F_UNSAFE;
		}
		return true;
	}
	if (of.t == V_LOOP) {
		*ret = loop_attr(r, of.loop, name);
		return ret->t != V_MISSING;
	}
	if (of.t == V_TUPLE && of.f & F_GROUP && (str_eq(name, STR("grouper")) || str_eq(name, STR("list")))) {
		*ret = of.at[name.p[0] == 'l'];
		return true;
	}
	m = template_method_of(m, (enum vtype)of.t);
	if (m && m->value && !m->run)
		run_unsure(r, "attribute '%s' of a %s is not supported", m->name, val_type_name(of));
	if (!m && (of.t == V_FUNC || of.t == V_MACRO || of.t == V_GEN || of.t == V_JOINER))
		run_unsure(r, "attribute '%.*s' of a %s is not supported", (int)name.n, name.p, val_type_name(of));
	if (!m)
		return false;
	*ret = bound(r, of, m, name);
	return true;
}

static bool own_item(struct run *r, struct val of, struct val key, struct val *ret)
{
	int64_t n;

	if (of.t == V_UNDEF)
		undef_used(r, of);
	if (of.t == V_DICT) {
		struct val *v = val_hashable(key) ? dict_find(r, of.dict, key) : NULL;

		if (v)
			*ret = val_force(r, v);
		return v;
	}
	if (!is_sequence(of) || !is_int(key))
		return false;
	if (of.t == V_STR && key.i == 0 && of.n) {
		*ret = val_item_at(r, of, 0);
		return true;
	}
	n = val_len(r, of);
	if (key.i < -n || key.i >= n)
		return false;
	*ret = val_item_at(r, of, key.i < 0 ? key.i + n : key.i);
	return true;
}

struct val val_item(struct run *r, struct val of, struct val key)
{
	struct val v;

	if (own_item(r, of, key, &v))
		return v;
	if (key.t != V_STR)
		return undef_hint("there is no such item");
	if (own_attr(r, of, val_str(key), template_method_find(val_str(key)), &v))
		return v;
	return undef_attr(val_str(key));
}

struct val val_attr(struct run *r, struct val of, struct str name, const struct method *m)
{
	struct val v;

	if (own_attr(r, of, name, m, &v) || own_item(r, of, val_strn(name.p, name.n), &v))
		return v;
	return undef_attr(name);
}

static struct val part(struct run *r, struct val of, struct str name)
{
	bool digits = name.n > 0;
	uint64_t n;

	for (size_t i = 0; i < name.n; i++) {
		if ((unsigned char)name.p[i] >= 0x80)
			run_unsure(r, "attribute '%.*s' is not supported", (int)name.n, name.p);
		digits &= name.p[i] >= '0' && name.p[i] <= '9';
	}
	if (digits && str_u64(name, &n) == 0 && n <= INT64_MAX)
		return val_item(r, of, val_int((int64_t)n));
	return val_item(r, of, val_strn(name.p, name.n));
}

struct val val_path(struct run *r, struct val of, struct val attribute, const struct val *missing)
{
	const char *p, *end, *dot;

	if (attribute.t == V_NONE)
		return of;
	if (attribute.t != V_STR) {
		of = val_item(r, of, attribute);
		return of.t == V_UNDEF && missing ? *missing : of;
	}
	for (p = attribute.s, end = p + attribute.n;; p = dot + 1) {
		dot = memchr(p, '.', (size_t)(end - p));
		of = part(r, of, (struct str){ p, (size_t)((dot ? dot : end) - p) });
		if (of.t == V_UNDEF && missing)
			of = *missing;
		if (!dot)
			return of;
	}
}

/* --- slices --- */

static int64_t slice_index(struct run *r, const struct val *v, int64_t n, int64_t dflt, bool back)
{
	int64_t i;

	if (!v || v->t == V_NONE)
		return dflt;
	if (v->t == V_UNDEF)
		undef_used(r, *v);
	if (!is_int(*v))
		run_raise(r, "slice indices must be integers, not %s", val_type_name(*v));
	i = v->i < 0 ? (v->i < -n ? -1 : v->i + n) : v->i;
	if (v->i < 0 && i < 0)
		return back ? -1 : 0;
	return i >= n ? (back ? n - 1 : n) : i;
}

static struct val slice_text(struct run *r, struct val of, int64_t from, int64_t to, int64_t by, int64_t n)
{
	struct val v = of;
	const char **at, *p;
	struct out o;
	int64_t i;

	if (by == 1) {
		size_t a = text_offset(r, of, from), b = a;

		if (to > from) {
			struct val rest = { .t = V_STR, .f = of.f & F_ASCII, .n = of.n - (uint32_t)a, .s = of.s + a };

			b += to == n ? rest.n : text_offset(r, rest, to - from);
		}
		v.s = of.s + a;
		v.n = (uint32_t)(b - a);
		return v;
	}
	at = run_get(r, ((size_t)n + 1) * sizeof(*at));
	run_step(r, (uint64_t)n / 4);
	for (p = of.s, i = 0; i < n; i++) {
		at[i] = p;
		utf8_next(&p);
	}
	at[n] = p;
	out_capture(r, &o);
	for (i = from; by > 0 ? i < to : i > to; i += by)
		out_put(r, at[i], (size_t)(at[i + 1] - at[i]));
	v = out_end(r, &o);
	v.f = of.f & (F_MARKUP | F_ASCII);
	return v;
}

static struct val slice_range(struct run *r, const struct range *of, int64_t from, int64_t to, int64_t by,
			      int64_t count)
{
	struct range *x = run_get(r, sizeof(*x));

	*x = (struct range){ .start = of->start + from * of->step, .stop = of->start + to * of->step, .n = count };
	x->step = of->step * by;
	return (struct val){ .t = V_RANGE, .range = x };
}

struct val val_slice(struct run *r, struct val of, const struct val *start, const struct val *stop,
		     const struct val *by_)
{
	int64_t n, by = 1, from, to, count, i = 0;
	struct val v;

	if (of.t == V_UNDEF)
		undef_used(r, of);
	if (!is_sequence(of))
		run_raise(r, "a %s cannot be sliced", val_type_name(of));
	if (by_ && by_->t != V_NONE) {
		if (!is_int(*by_) || by_->i == 0)
			run_raise(r, "bad step of a slice");
		by = by_->i;
	}
	n = val_len(r, of);
	from = slice_index(r, start, n, by < 0 ? n - 1 : 0, by < 0);
	to = slice_index(r, stop, n, by < 0 ? -1 : n, by < 0);
	if (by > INT32_MAX || by < INT32_MIN)
		run_unsure(r, "a slice by very large steps");
	if (of.t == V_STR)
		return slice_text(r, of, from, to, by, n);
	count = by > 0 ? (to > from ? (to - from - 1) / by + 1 : 0) : from > to ? (from - to - 1) / -by + 1 : 0;
	if (of.t == V_RANGE)
		return slice_range(r, of.range, from, to, by, count);
	if (by == 1 || count == 0) {
		v = val_of((enum vtype)of.t);
		v.at = of.at + (count ? from : 0);
		v.n = (uint32_t)count;
		return v;
	}
	for (v = val_list(r, (enum vtype)of.t, (size_t)count); i < count; i++)
		v.at[i] = of.at[from + i * by];
	return v;
}
