/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls: arguments to parameters, what can be called, and the functions that every template has.
 */
#include <stdio.h>
#include <time.h>

#include "model/template_int.h"

/* The place of <name> in "a,b,c"; -1: not in it. */
static int param_place(const char *names, struct str name)
{
	int i = 0;

	for (const char *p = names; p; i++) {
		const char *comma = strchr(p, ',');
		struct str one = { p, comma ? (size_t)(comma - p) : strlen(p) };

		if (str_eq(one, name))
			return i;
		p = comma ? comma + 1 : NULL;
	}
	return -1;
}

const char *args_check(const struct param *p, unsigned n, const struct str *kw, unsigned nkw)
{
	unsigned given = n;

	if (p->max == ANY_ARGS)
		return NULL;
	if (n > p->max)
		return "too many arguments";
	for (unsigned i = 0; i < nkw; i++) {
		int at = param_place(p->names, kw[i]);

		if (at < 0)
			return "there is no such argument";
		if ((unsigned)at < n)
			return "an argument is given twice";
		given += (unsigned)at < p->min;
	}
	return given < p->min ? "an argument is missing" : NULL;
}

void args_bind(struct run *r, const char *what, const struct param *p, const struct args *a, struct val slot[ARGS_MAX])
{
	const char *wrong = args_check(p, a->n, a->names, a->nkw);

	if (wrong)
		run_raise(r, "%s: %s", what, wrong);
	for (unsigned i = 0; i < ARGS_MAX; i++)
		slot[i] = i < a->n ? a->at[i] : val_of(V_MISSING);
	for (unsigned i = 0; i < a->nkw; i++)
		slot[param_place(p->names, a->names[i])] = a->at[a->n + i];
}

struct val args_kwargs(struct run *r, const struct args *a)
{
	struct val d = dict_new(r, a->nkw);

	for (unsigned i = 0; i < a->nkw; i++)
		dict_put_str(r, d.dict, a->names[i], a->at[a->n + i]);
	return d;
}

/* --- functions --- */

static struct val f_raise(struct run *r, struct val self, struct val *arg, const struct args *a)
{
	static const struct param p = { "message", 1, 1 };
	struct val slot[ARGS_MAX], s;

	args_bind(r, "raise_exception", &p, a, slot);
	s = val_to_str(r, slot[0]);
	run_raise(r, "%.*s", (int)s.n, s.s);
}

static struct val f_strftime(struct run *r, struct val self, struct val *arg, const struct args *a)
{
	static const struct param p = { "format", 1, 1 };
	struct val slot[ARGS_MAX];
	char format[128], *out;
	time_t t = r->now;
	struct tm tm;

	args_bind(r, "strftime_now", &p, a, slot);
	if (slot[0].t != V_STR)
		run_raise(r, "strftime_now wants a string, not a %s", val_type_name(slot[0]));
	if (slot[0].n >= sizeof(format) || memchr(slot[0].s, 0, slot[0].n))
		run_unsure(r, "strftime_now with a format of more than %zu bytes", sizeof(format) - 1);
	memcpy(format, slot[0].s, slot[0].n);
	format[slot[0].n] = 0;
	for (const char *f = format; (f = strchr(f, '%')); f += 2)
		if (!f[1] || !strchr("aAbBdeHIjmMpSuUVwWyYGCDFThnRtr%", f[1]))
			run_unsure(r, "strftime_now(\"%s\"): %%%.1s is not supported", format, f + 1);
	if (!(r->utc ? gmtime_r(&t, &tm) : localtime_r(&t, &tm)))
		run_unsure(r, "a time that has no date");
	out = run_bytes(r, 2048);
	return val_strn(out, strftime(out, 2048, format, &tm));
}

static struct val f_range(struct run *r, struct val self, struct val *arg, const struct args *a)
{
	int64_t v[3] = { 0, 0, 1 };
	struct range *x;

	if (a->nkw || a->n < 1 || a->n > 3)
		run_raise(r, "range: wrong arguments");
	for (unsigned i = 0; i < a->n; i++) {
		if (a->at[i].t == V_UNDEF)
			undef_used(r, a->at[i]);
		if (!is_int(a->at[i]))
			run_raise(r, "range wants integers, not a %s", val_type_name(a->at[i]));
		v[a->n == 1 ? 1 : i] = a->at[i].i;
	}
	if (v[2] == 0)
		run_raise(r, "range: the step must not be zero");
	for (int i = 0; i < 3; i++)
		if (v[i] > INT64_MAX / 4 || v[i] < INT64_MIN / 4)
			run_unsure(r, "range of very large numbers");
	x = run_get(r, sizeof(*x));
	x->start = v[0];
	x->stop = v[1];
	x->step = v[2];
	x->n = v[2] > 0 ? (v[1] > v[0] ? (v[1] - v[0] - 1) / v[2] + 1 : 0)
			: (v[1] < v[0] ? (v[0] - v[1] - 1) / -v[2] + 1 : 0);
	if (x->n > RANGE_MAX)
		run_raise(r, "range of more than %d numbers", RANGE_MAX);
	return (struct val){ .t = V_RANGE, .range = x };
}

/* dict(mapping or pairs, names…) */
static struct val make_dict(struct run *r, const struct args *a)
{
	struct val d = dict_new(r, 0), e, pair[3];

	if (a->n > 1)
		run_raise(r, "dict: too many arguments");
	if (a->n && a->at[0].t == V_DICT) {
		for (uint32_t i = 0; i < a->at[0].dict->n; i++)
			dict_put(r, d.dict, a->at[0].dict->at[i].k, val_force(r, &a->at[0].dict->at[i].v));
	} else if (a->n) {
		for (struct iter it = iter_new(r, a->at[0]); iter_next(r, &it, &e);) {
			struct iter two = iter_new(r, e);

			for (int i = 0; i < 3; i++)
				if (iter_next(r, &two, &pair[i]) != (i < 2))
					run_raise(r, "dict: elements must be pairs");
			if (!val_hashable(pair[0]))
				run_raise(r, "a %s cannot be a key", val_type_name(pair[0]));
			dict_put(r, d.dict, pair[0], pair[1]);
		}
	}
	for (unsigned i = 0; i < a->nkw; i++)
		dict_put_str(r, d.dict, a->names[i], a->at[a->n + i]);
	return d;
}

static struct val f_dict(struct run *r, struct val self, struct val *arg, const struct args *a)
{
	return make_dict(r, a);
}

static struct val f_namespace(struct run *r, struct val self, struct val *arg, const struct args *a)
{
	struct val d = make_dict(r, a);

	d.t = V_NS;
	return d;
}

static struct val f_cycler(struct run *r, struct val self, struct val *arg, const struct args *a)
{
	struct cycler *c = run_get(r, sizeof(*c));

	if (a->nkw || a->n == 0)
		run_raise(r, "cycler wants at least one item");
	c->items = val_list(r, V_TUPLE, a->n);
	memcpy(c->items.at, a->at, a->n * sizeof(*a->at));
	c->pos = 0;
	return (struct val){ .t = V_CYCLER, .cycler = c };
}

static struct val f_joiner(struct run *r, struct val self, struct val *arg, const struct args *a)
{
	static const struct param p = { "sep", 0, 1 };
	struct val slot[ARGS_MAX];
	struct cycler *c = run_get(r, sizeof(*c));

	args_bind(r, "joiner", &p, a, slot);
	c->items = slot[0].t == V_MISSING ? val_lit(", ") : slot[0];
	c->pos = 0;
	return (struct val){ .t = V_JOINER, .cycler = c };
}

static struct val f_unsupported(struct run *r, struct val self, struct val *arg, const struct args *a)
{
	run_unsure(r, "lipsum is not supported");
}

bool template_func_find(struct str name, struct val *ret)
{
	static const struct func table[] = {
		{ "raise_exception", f_raise },
		{ "strftime_now", f_strftime },
		{ "range", f_range },
		{ "namespace", f_namespace },
		{ "dict", f_dict },
		{ "cycler", f_cycler },
		{ "joiner", f_joiner },
		{ "lipsum", f_unsupported },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (str_eq(name, str_of(table[i].name))) {
			*ret = (struct val){ .t = V_FUNC, .func = &table[i] };
			return true;
		}
	return false;
}

/* --- what is called --- */

static struct val loop_method(struct run *r, struct loop *l, const struct method *m, const struct args *a)
{
	struct val now;

	if (a->nkw)
		run_raise(r, "loop.%s takes no keyword arguments", m->name);
	if (m->name[1] == 'y') { /* cycle */
		if (a->n == 0)
			run_raise(r, "no items for cycling given");
		return a->at[l->index0 % a->n];
	}
	now = val_list(r, V_TUPLE, a->n);
	if (a->n)
		memcpy(now.at, a->at, a->n * sizeof(now));
	if (l->changed.t == V_TUPLE && val_equal(r, l->changed, now))
		return val_bool(false);
	l->changed = now;
	return val_bool(true);
}

static struct val method_call(struct run *r, const struct bound *b, const struct args *a)
{
	struct val slot[ARGS_MAX];

	if (b->self.t == V_LOOP)
		return loop_method(r, b->self.loop, b->method, a);
	if (!b->method->run)
		run_unsure(r, "method '%s' of a %s is not supported", b->method->name, val_type_name(b->self));
	if (b->method->p.max == ANY_ARGS)
		return b->method->run(r, b->self, NULL, a);
	args_bind(r, b->method->name, &b->method->p, a, slot);
	return b->method->run(r, b->self, slot, a);
}

struct val val_call(struct run *r, struct val callee, const struct args *a)
{
	switch (callee.t) {
	case V_UNDEF:
		undef_used(r, callee);
	case V_FUNC:
		return callee.func->run(r, callee, NULL, a);
	case V_METHOD:
		return method_call(r, callee.bound, a);
	case V_MACRO:
		return macro_call(r, callee.macro, a, true);
	case V_JOINER:
		if (a->n || a->nkw)
			run_raise(r, "a joiner takes no arguments");
		return callee.cycler->pos++ ? callee.cycler->items : val_lit("");
	case V_LOOP:
		if (a->n != 1 || a->nkw)
			run_raise(r, "loop wants one argument");
		return loop_call(r, callee.loop, a->at[0]);
	default:
		run_raise(r, "a %s cannot be called", val_type_name(callee));
	}
}

struct val filter_call(struct run *r, const struct filter *f, struct val v, const struct args *a)
{
	struct val slot[ARGS_MAX];

	if (f->p.max == ANY_ARGS)
		return f->run(r, v, NULL, a);
	args_bind(r, f->name, &f->p, a, slot);
	return f->run(r, v, slot, a);
}

bool test_call(struct run *r, const struct test *t, struct val v, const struct args *a)
{
	struct val slot[ARGS_MAX];

	args_bind(r, t->name, &t->p, a, slot);
	return t->run(r, v, slot, a).i;
}
