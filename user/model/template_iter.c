/* SPDX-License-Identifier: Apache-2.0
 *
 * Walking things. Generators are lazy, because templates can see it: what they filter by may change while they are
 * walked, they are walked once, and an error inside of one shows only when it gets there.
 */
#include "model/template_int.h"

bool val_iterable(struct val v)
{
	return v.t == V_UNDEF || (v.t >= V_STR && v.t <= V_GEN) || v.t == V_LOOP;
}

struct iter iter_new(struct run *r, struct val v)
{
	struct iter it = { .kind = v.t, .of = v };

	if (!val_iterable(v))
		run_raise(r, "a %s cannot be iterated", val_type_name(v));
	if (v.t == V_LOOP)
		run_unsure(r, "the variable loop is iterated");
	return it;
}

static struct val view_item(struct run *r, const struct dict *d, uint16_t what, uint32_t i)
{
	struct val v;

	if (what == 'k')
		return d->at[i].k;
	if (what == 'v')
		return val_force(r, &d->at[i].v);
	v = val_list(r, V_TUPLE, 2);
	v.at[0] = d->at[i].k;
	v.at[1] = val_force(r, &d->at[i].v);
	return v;
}

/* --- generators --- */

struct val gen_new(struct run *r, enum gen_kind kind, struct val of)
{
	struct gen *g = run_get(r, sizeof(*g));

	*g = (struct gen){ .kind = (uint8_t)kind, .value = of, .extra = val_of(V_NONE), .fill = val_of(V_NONE) };
	return (struct val){ .t = V_GEN, .gen = g };
}

static bool selected(struct run *r, struct gen *g, struct val v)
{
	bool yes;

	if (g->by_attr)
		v = val_path(r, v, g->extra, NULL);
	yes = g->test ? test_call(r, g->test, v, &g->args) : val_truth(r, v);
	return yes != g->negate;
}

static bool not_seen(struct run *r, struct gen *g, struct val v)
{
	struct val key = val_path(r, v, g->fill, NULL);

	if (g->negate && key.t == V_STR) /* case does not count */
		key = text_case(r, key, 'l');
	if (!val_hashable(key))
		run_raise(r, "a %s cannot be a key", val_type_name(key));
	if (dict_find(r, g->extra.dict, key))
		return false;
	dict_put(r, g->extra.dict, key, val_of(V_NONE));
	return true;
}

/* Lists of <count>, the last one filled up. */
static bool batch_next(struct run *r, struct gen *g, struct val *ret)
{
	struct val v, list = val_list(r, V_LIST, (size_t)g->count);

	list.n = 0;
	while (list.n < g->count && iter_next(r, &g->src, &v))
		list.at[list.n++] = v;
	if (list.n == 0)
		return false;
	while (g->fill.t != V_NONE && list.n < g->count)
		list.at[list.n++] = g->fill;
	*ret = list;
	return true;
}

/* <count> lists of nearly equal length. */
static bool slice_next(struct run *r, struct gen *g, struct val *ret)
{
	int64_t n = g->value.n, k = g->src.at, each = n / g->count, extra = n % g->count;
	int64_t from = k * each + (k < extra ? k : extra), m = each + (k < extra);
	struct val list;

	if (k >= g->count)
		return false;
	g->src.at++;
	list = val_list(r, V_LIST, (size_t)m + 1);
	memcpy(list.at, g->value.at + from, (size_t)m * sizeof(*list.at));
	list.n = (uint32_t)m;
	if (g->fill.t != V_NONE && k >= extra)
		list.at[list.n++] = g->fill;
	*ret = list;
	return true;
}

static void gen_start(struct run *r, struct gen *g)
{
	g->started = true;
	switch (g->kind) {
	case GEN_ITEMS:
		if (g->value.t == V_UNDEF) {
			g->done = true;
			return;
		}
		if (g->value.t != V_DICT)
			run_raise(r, "items: a %s is no mapping", val_type_name(g->value));
		g->value.t = V_VIEW;
		g->value.x = 'i';
		break;
	case GEN_MAP:
	case GEN_MAP_ATTR:
	case GEN_SELECT:
		if (!val_truth(r, g->value)) {
			g->done = true;
			return;
		}
		break;
	case GEN_SLICE:
		g->value = val_to_list(r, g->value, V_LIST);
		if (g->count == 0)
			run_raise(r, "slice: division by zero");
		g->src.at = 0;
		return;
	case GEN_UNIQUE:
		g->extra = dict_new(r, 0);
		break;
	case GEN_BATCH:
		if (g->count <= 0)
			run_unsure(r, "batch of fewer than one");
		break;
	default:
		break;
	}
	g->src = iter_new(r, g->value);
}

static bool gen_step(struct run *r, struct gen *g, struct val *ret)
{
	struct val v;

	if (g->kind == GEN_SLICE)
		return slice_next(r, g, ret);
	if (g->kind == GEN_BATCH)
		return batch_next(r, g, ret);
	if (g->kind == GEN_COND)
		return cond_next(r, g, ret);
	while (iter_next(r, &g->src, &v)) {
		switch (g->kind) {
		case GEN_MAP:
			v = filter_call(r, g->filter, v, &g->args);
			break;
		case GEN_MAP_ATTR:
			v = val_path(r, v, g->extra, g->fill.t == V_NONE ? NULL : &g->fill);
			break;
		case GEN_SELECT:
			if (!selected(r, g, v))
				continue;
			break;
		case GEN_UNIQUE:
			if (!not_seen(r, g, v))
				continue;
			break;
		default:
			break;
		}
		*ret = v;
		return true;
	}
	return false;
}

static bool gen_next(struct run *r, struct gen *g, struct val *ret)
{
	if (g->done)
		return false;
	if (++r->depth > RUN_DEPTH)
		run_fail(r, TEMPLATE_LIMIT, "generators nested too deep");
	if (!g->started)
		gen_start(r, g);
	g->done = g->done || !gen_step(r, g, ret);
	r->depth--;
	return !g->done;
}

bool iter_next(struct run *r, struct iter *it, struct val *ret)
{
	struct val of = it->of;

	run_step(r, 1);
	switch (it->kind) {
	case V_LIST:
	case V_TUPLE:
		if (it->at >= of.n)
			return false;
		*ret = val_force(r, &of.at[it->at++]);
		return true;
	case V_DICT:
	case V_VIEW:
		if (it->at >= of.dict->n)
			return false;
		*ret = view_item(r, of.dict, it->kind == V_DICT ? 'k' : of.x, it->at++);
		return true;
	case V_STR:
		if (of.n == 0)
			return false;
		*ret = val_item_at(r, of, 0);
		it->of.s += ret->n;
		it->of.n -= ret->n;
		ret->f &= (uint8_t)~F_MARKUP;
		return true;
	case V_RANGE:
		if (it->at >= of.range->n)
			return false;
		*ret = val_item_at(r, of, it->at++);
		return true;
	case V_GEN:
		return gen_next(r, of.gen, ret);
	default: /* undefined */
		return false;
	}
}

struct val val_to_list(struct run *r, struct val v, enum vtype t)
{
	struct val list, e;
	uint32_t cap = 8;
	struct iter it;

	if (v.t == V_LIST || v.t == V_TUPLE) {
		v.t = (uint8_t)t;
		v.f = 0;
		return v; /* nothing can change it */
	}
	if (v.t != V_GEN && val_has_len(v))
		cap = (uint32_t)val_len(r, v) + 1;
	list = val_list(r, t, cap);
	list.n = 0;
	for (it = iter_new(r, v); iter_next(r, &it, &e);) {
		if (list.n == cap) {
			struct val more = val_list(r, t, (size_t)cap * 2);

			memcpy(more.at, list.at, list.n * sizeof(e));
			list.at = more.at;
			cap *= 2;
		}
		list.at[list.n++] = e;
	}
	return list;
}

/* --- the variable loop --- */

bool loop_next(struct run *r, struct loop *l, struct val *ret)
{
	if (l->has_after) {
		*ret = l->after;
		l->has_after = false;
	} else if (!iter_next(r, &l->iter, ret)) {
		return false;
	}
	l->index0++;
	l->before = l->current;
	l->current = *ret;
	return true;
}

static bool peek(struct run *r, struct loop *l)
{
	if (!l->has_after)
		l->has_after = iter_next(r, &l->iter, &l->after);
	return l->has_after;
}

int64_t loop_length(struct run *r, struct loop *l)
{
	struct val rest;

	if (l->length >= 0)
		return l->length;
	/* What has a length told it when the loop began; this is a generator. */
	rest = val_to_list(r, l->iter.of, V_LIST);
	l->iter = iter_new(r, rest);
	return l->length = rest.n + l->index0 + 1 + l->has_after;
}

struct val loop_attr(struct run *r, struct loop *l, struct str name)
{
	static const struct method cycle = { .name = "cycle" }, changed = { .name = "changed" };
	struct bound *b;

#define IS(lit) str_eq(name, STR(lit))
	if (IS("index0"))
		return val_int(l->index0);
	if (IS("index"))
		return val_int(l->index0 + 1);
	if (IS("first"))
		return val_bool(l->index0 == 0);
	if (IS("last"))
		return val_bool(!peek(r, l));
	if (IS("previtem"))
		return l->index0 == 0 ? undef_hint("there is no previous item") : l->before;
	if (IS("nextitem"))
		return peek(r, l) ? l->after : undef_hint("there is no next item");
	if (IS("length"))
		return val_int(loop_length(r, l));
	if (IS("revindex"))
		return val_int(loop_length(r, l) - l->index0);
	if (IS("revindex0"))
		return val_int(loop_length(r, l) - l->index0 - 1);
	if (IS("depth0"))
		return val_int(l->depth0);
	if (IS("depth"))
		return val_int(l->depth0 + 1);
	if (!IS("cycle") && !IS("changed"))
		return val_of(V_MISSING);
#undef IS
	b = run_get(r, sizeof(*b));
	*b = (struct bound){ { .t = V_LOOP, .loop = l }, name.n == 5 ? &cycle : &changed };
	return (struct val){ .t = V_METHOD, .bound = b };
}
