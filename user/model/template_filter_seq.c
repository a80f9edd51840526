/* SPDX-License-Identifier: Apache-2.0
 *
 * Filters of lists, dicts and whatever can be walked.
 */
#include "model/template_filter.h"

FILTER(f_length)
{
	return val_int(val_len(r, v));
}

FILTER(f_list)
{
	return val_to_list(r, v, V_LIST);
}

FILTER(f_first)
{
	struct iter it = iter_new(r, v);
	struct val first;

	return iter_next(r, &it, &first) ? first : undef_hint("No first item, sequence was empty.");
}

static bool reversible(struct val v)
{
	return v.t == V_UNDEF || (v.t >= V_STR && v.t <= V_VIEW);
}

FILTER(f_last)
{
	if (!reversible(v))
		run_raise(r, "a %s cannot be reversed", val_type_name(v));
	if (v.t == V_DICT || v.t == V_VIEW)
		v = val_to_list(r, v, V_LIST);
	return val_truth(r, v) ? val_item_at(r, v, val_len(r, v) - 1) : undef_hint("No last item, sequence was empty.");
}

static struct val turned(struct run *r, struct val v)
{
	struct val from = val_to_list(r, v, V_LIST), to = val_list(r, V_LIST, from.n);

	for (uint32_t i = 0; i < from.n; i++)
		to.at[from.n - 1 - i] = val_force(r, &from.at[i]);
	return to;
}

FILTER(f_reverse)
{
	struct val list;

	if (v.t == V_STR)
		return text_reverse(r, v);
	list = turned(r, v);
	return v.t == V_GEN ? list : gen_new(r, GEN_REVERSED, list);
}

FILTER(f_join)
{
	struct val sep = arg[0].t == V_MISSING ? val_lit("") : val_to_str(r, arg[0]), e;
	bool first = true;
	struct out o;

	out_capture(r, &o);
	for (struct iter it = iter_new(r, v); iter_next(r, &it, &e); first = false) {
		if (arg[1].t != V_MISSING)
			e = val_path(r, e, arg[1], NULL);
		if (!first)
			out_put(r, sep.s, sep.n);
		val_print(r, e);
	}
	return out_end(r, &o);
}

FILTER(f_items)
{
	return gen_new(r, GEN_ITEMS, v);
}

/* --- map, select, reject --- */

static const struct val *keyword(const struct args *a, const char *name)
{
	for (unsigned i = 0; i < a->nkw; i++)
		if (str_eq(a->names[i], str_of(name)))
			return &a->at[a->n + i];
	return NULL;
}

FILTER(f_map)
{
	const struct val *attribute = keyword(a, "attribute"), *missing = keyword(a, "default");
	struct val g = gen_new(r, GEN_MAP, v);

	/* jinja2 looks at all this when the generator starts, which is too late to tell it from never. */
	if (!val_truth(r, v))
		return g;
	if (a->n == 0 && attribute) {
		if (a->nkw > 1U + (missing != NULL))
			run_unsure(r, "map: unknown argument");
		g.gen->kind = GEN_MAP_ATTR;
		g.gen->extra = *attribute;
		if (missing)
			g.gen->fill = *missing;
		return g;
	}
	if (a->n == 0)
		run_unsure(r, "map wants a filter's name");
	g.gen->filter = a->at[0].t == V_STR ? template_filter_find(val_str(a->at[0])) : NULL;
	if (!g.gen->filter || !g.gen->filter->run)
		run_unsure(r, "map: no such filter");
	g.gen->args = (struct args){ a->at + 1, a->n - 1, a->nkw, a->names };
	return g;
}

static struct val choose(struct run *r, struct val v, const struct args *a, bool by_attr, bool negate)
{
	struct val g = gen_new(r, GEN_SELECT, v);
	unsigned skip = by_attr;

	g.gen->negate = negate;
	g.gen->by_attr = by_attr;
	if (!val_truth(r, v))
		return g;
	if (a->n < skip)
		run_unsure(r, "an attribute's name is missing");
	if (by_attr)
		g.gen->extra = a->at[0];
	if (a->n == skip)
		return g;
	g.gen->test = a->at[skip].t == V_STR ? template_test_find(val_str(a->at[skip])) : NULL;
	if (!g.gen->test || !g.gen->test->run)
		run_unsure(r, "no such test");
	skip++;
	g.gen->args = (struct args){ a->at + skip, a->n - skip, a->nkw, a->names };
	return g;
}

FILTER(f_select)
{
	return choose(r, v, a, false, false);
}

FILTER(f_reject)
{
	return choose(r, v, a, false, true);
}

FILTER(f_selectattr)
{
	return choose(r, v, a, true, false);
}

FILTER(f_rejectattr)
{
	return choose(r, v, a, true, true);
}

/* --- order --- */

/* The places of <key> in its order; what is equal stays as it was. */
uint32_t *val_sort_order(struct run *r, const struct val *key, uint32_t n, bool reverse)
{
	uint32_t *at = run_get(r, (n + 1) * sizeof(*at)), *to = run_get(r, (n + 1) * sizeof(*to)), *swap;

	for (uint32_t i = 0; i < n; i++)
		at[i] = i;
	for (uint64_t w = 1; w < n; w *= 2) {
		for (uint64_t from = 0; from < n; from += 2 * w) {
			uint64_t a = from, mid = from + w < n ? from + w : n, b = mid, end = mid + w < n ? mid + w : n;

			for (uint64_t k = from; k < end; k++) {
				bool right = a == mid;

				if (a < mid && b < end)
					right = reverse ? val_ordered(r, 'l', key[at[a]], key[at[b]])
							: val_ordered(r, 'l', key[at[b]], key[at[a]]);
				to[k] = at[right ? b++ : a++];
			}
		}
		swap = at;
		at = to;
		to = swap;
	}
	return at;
}

static struct val folded(struct run *r, struct val v, bool case_sensitive)
{
	return v.t == V_STR && !case_sensitive ? text_case(r, v, 'l') : v;
}

FILTER(f_dictsort)
{
	bool sensitive = arg_true(r, arg[0], false), by_value = false, reverse = arg_true(r, arg[2], false);
	struct val keys, list;
	uint32_t *order;

	if (v.t == V_UNDEF)
		undef_used(r, v);
	if (arg[1].t != V_MISSING) {
		by_value = val_is(arg[1], STR("value"));
		if (!by_value && !val_is(arg[1], STR("key")))
			run_raise(r, "dictsort sorts by \"key\" or \"value\"");
	}
	if (v.t != V_DICT)
		run_raise(r, "dictsort of a %s", val_type_name(v));
	keys = val_list(r, V_LIST, v.dict->n);
	list = val_list(r, V_LIST, v.dict->n);
	for (uint32_t i = 0; i < list.n; i++) {
		struct pair *p = &v.dict->at[i];

		keys.at[i] = folded(r, by_value ? val_force(r, &p->v) : p->k, sensitive);
	}
	order = val_sort_order(r, keys.at, keys.n, reverse);
	for (uint32_t i = 0; i < list.n; i++) {
		struct pair *p = &v.dict->at[order[i]];

		list.at[i] = val_list(r, V_TUPLE, 2);
		list.at[i].at[0] = p->k;
		list.at[i].at[1] = val_force(r, &p->v);
	}
	return list;
}

/* The attributes "a,b.c" as a list, which has the order of lists. */
static struct val sort_key(struct run *r, struct val v, struct val attribute, bool sensitive)
{
	struct val commas = val_lit(","), names, key;

	if (attribute.t == V_MISSING || attribute.t == V_NONE || attribute.t != V_STR) {
		key = val_list(r, V_LIST, 1);
		key.at[0] = attribute.t == V_MISSING ? v : val_path(r, v, attribute, NULL);
		key.at[0] = folded(r, key.at[0], sensitive);
		return key;
	}
	names = text_split(r, attribute, &commas, -1, false);
	key = val_list(r, V_LIST, names.n);
	for (uint32_t i = 0; i < names.n; i++)
		key.at[i] = folded(r, val_path(r, v, names.at[i], NULL), sensitive);
	return key;
}

FILTER(f_sort)
{
	struct val from = val_to_list(r, v, V_LIST), keys = val_list(r, V_LIST, from.n),
		   to = val_list(r, V_LIST, from.n);
	bool sensitive = arg_true(r, arg[1], false);
	uint32_t *order;

	for (uint32_t i = 0; i < from.n; i++)
		keys.at[i] = sort_key(r, val_force(r, &from.at[i]), arg[2], sensitive);
	order = val_sort_order(r, keys.at, keys.n, arg_true(r, arg[0], false));
	for (uint32_t i = 0; i < from.n; i++)
		to.at[i] = from.at[order[i]];
	return to;
}

static struct val attr_or_none(struct val v)
{
	return v.t == V_MISSING ? val_of(V_NONE) : v;
}

FILTER(f_unique)
{
	struct val g = gen_new(r, GEN_UNIQUE, v);

	g.gen->negate = !arg_true(r, arg[0], false);
	g.gen->fill = attr_or_none(arg[1]);
	return g;
}

static struct val extreme(struct run *r, struct val v, struct val *arg, char op)
{
	struct val best = undef_hint("No aggregated item, sequence was empty."), key = best, e;
	bool sensitive = arg_true(r, arg[0], false), first = true;

	for (struct iter it = iter_new(r, v); iter_next(r, &it, &e); first = false) {
		struct val k = folded(r, val_path(r, e, attr_or_none(arg[1]), NULL), sensitive);

		if (first || val_ordered(r, op, k, key)) {
			best = e;
			key = k;
		}
	}
	return best;
}

FILTER(f_min)
{
	return extreme(r, v, arg, 'l');
}

FILTER(f_max)
{
	return extreme(r, v, arg, 'g');
}

FILTER(f_sum)
{
	struct val total = arg[1].t == V_MISSING ? val_int(0) : arg[1], e;

	if (total.t == V_STR)
		run_raise(r, "sum cannot add up strings");
	for (struct iter it = iter_new(r, v); iter_next(r, &it, &e);) {
		if (total.t == V_FLOAT || e.t == V_FLOAT)
			run_unsure(r, "sum of floats");
		total = val_binary(r, '+', total, val_path(r, e, attr_or_none(arg[0]), NULL));
	}
	return total;
}

FILTER(f_groupby)
{
	const struct val *missing = arg[1].t == V_MISSING || arg[1].t == V_NONE ? NULL : &arg[1];
	struct val from = val_to_list(r, v, V_LIST), keys = val_list(r, V_LIST, from.n),
		   out = val_list(r, V_LIST, from.n);
	bool sensitive = arg_true(r, arg[2], false);
	uint32_t *order;

	for (uint32_t i = 0; i < from.n; i++)
		keys.at[i] = folded(r, val_path(r, val_force(r, &from.at[i]), arg[0], missing), sensitive);
	order = val_sort_order(r, keys.at, keys.n, false);
	out.n = 0;
	for (uint32_t i = 0; i < from.n;) {
		struct val group = val_list(r, V_TUPLE, 2), list = val_list(r, V_LIST, from.n - i);
		struct val key = keys.at[order[i]];

		list.n = 0;
		while (i < from.n && val_equal(r, keys.at[order[i]], key))
			list.at[list.n++] = from.at[order[i++]];
		if (list.n == 0)
			run_unsure(r, "groupby of what does not equal itself");
		group.f = F_GROUP;
		group.at[0] = sensitive ? key : val_path(r, list.at[0], arg[0], missing);
		group.at[1] = list;
		out.at[out.n++] = group;
	}
	return out;
}

static struct val chunks(struct run *r, enum gen_kind kind, struct val v, struct val *arg)
{
	struct val g = gen_new(r, kind, v);

	g.gen->count = arg_int(r, arg[0], 0);
	g.gen->fill = attr_or_none(arg[1]);
	if (g.gen->count > UINT32_MAX / 64)
		run_unsure(r, "very many pieces");
	return g;
}

FILTER(f_batch)
{
	return chunks(r, GEN_BATCH, v, arg);
}

FILTER(f_slice)
{
	return chunks(r, GEN_SLICE, v, arg);
}

const struct filter *template_filter_find_seq(struct str name)
{
	static const struct filter table[] = {
		{ "batch", { "linecount,fill_with", 1, 2 }, f_batch },
		{ "count", { NULL, 0, 0 }, f_length },
		{ "dictsort", { "case_sensitive,by,reverse", 0, 3 }, f_dictsort },
		{ "first", { NULL, 0, 0 }, f_first },
		{ "groupby", { "attribute,default,case_sensitive", 1, 3 }, f_groupby },
		{ "items", { NULL, 0, 0 }, f_items },
		{ "join", { "d,attribute", 0, 2 }, f_join },
		{ "last", { NULL, 0, 0 }, f_last },
		{ "length", { NULL, 0, 0 }, f_length },
		{ "list", { NULL, 0, 0 }, f_list },
		{ "map", { NULL, 0, ANY_ARGS }, f_map },
		{ "max", { "case_sensitive,attribute", 0, 2 }, f_max },
		{ "min", { "case_sensitive,attribute", 0, 2 }, f_min },
		{ "reject", { NULL, 0, ANY_ARGS }, f_reject },
		{ "rejectattr", { NULL, 0, ANY_ARGS }, f_rejectattr },
		{ "reverse", { NULL, 0, 0 }, f_reverse },
		{ "select", { NULL, 0, ANY_ARGS }, f_select },
		{ "selectattr", { NULL, 0, ANY_ARGS }, f_selectattr },
		{ "slice", { "slices,fill_with", 1, 2 }, f_slice },
		{ "sort", { "reverse,case_sensitive,attribute", 0, 3 }, f_sort },
		{ "sum", { "attribute,start", 0, 2 }, f_sum },
		{ "unique", { "case_sensitive,attribute", 0, 2 }, f_unique },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (str_eq(name, str_of(table[i].name)))
			return &table[i];
	return NULL;
}
