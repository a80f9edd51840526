/* SPDX-License-Identifier: Apache-2.0
 *
 * Expressions.
 */
#include "model/template_int.h"

struct val *slot_of(struct run *r, struct ref ref)
{
	struct act *a = r->act;

	for (uint16_t i = 0; i < ref.up; i++)
		a = a->up;
	return &a->slot[ref.slot];
}

static struct val name(struct run *r, const struct node *n)
{
	struct val v = *slot_of(r, n->ref);

	if (v.t != V_MISSING)
		return v;
	if (n->flags & NF_PARAM)
		run_unsure(r, "\"%.*s\" is used after its loop", (int)n->name.n, n->name.p);
	return undef_name(n->name);
}

/* Positional arguments, keywords behind them. */
struct args node_args(struct run *r, const struct node *n)
{
	struct args a = { .names = n->kwnames };
	unsigned i = 0;

	if (n->nargs + n->ref.slot == 0)
		return a;
	a.at = run_get(r, (size_t)(n->nargs + n->ref.slot) * sizeof(*a.at));
	for (const struct node *k = n->kid[K1]; k; k = k->next)
		a.at[i++] = node_eval(r, k);
	a.n = i;
	for (const struct node *k = n->kid[K2]; k; k = k->next)
		a.at[i++] = node_eval(r, k->kid[K0]);
	a.nkw = i - a.n;
	return a;
}

/* f(*list, **dict), and the caller of a call block. */
static struct args spread(struct run *r, const struct node *n, struct args a, const struct val *caller)
{
	struct val list = n->kid[K3] ? val_to_list(r, node_eval(r, n->kid[K3]), V_LIST) : val_list(r, V_LIST, 0);
	struct val kw = n->kid[K4] ? node_eval(r, n->kid[K4]) : dict_new(r, 0);
	struct args all = { .n = a.n + list.n };
	unsigned i = 0;
	struct str *names;

	if (kw.t == V_UNDEF)
		undef_used(r, kw);
	if (kw.t != V_DICT)
		run_raise(r, "argument after ** must be a mapping, not a %s", val_type_name(kw));
	if ((uint64_t)all.n + kw.dict->n > 10000)
		run_fail(r, TEMPLATE_LIMIT, "too many arguments");
	all.at = run_get(r, (all.n + a.nkw + kw.dict->n + 2) * sizeof(*all.at));
	all.names = names = run_get(r, (a.nkw + kw.dict->n + 2) * sizeof(*names));
	for (unsigned k = 0; k < a.n; k++)
		all.at[i++] = a.at[k];
	for (uint32_t k = 0; k < list.n; k++)
		all.at[i++] = val_force(r, &list.at[k]);
	for (unsigned k = 0; k < a.nkw; k++) {
		names[all.nkw++] = a.names[k];
		all.at[i++] = a.at[a.n + k];
	}
	for (uint32_t k = 0; k < kw.dict->n; k++) {
		struct pair *p = &kw.dict->at[k];

		if (p->k.t != V_STR)
			run_raise(r, "keywords must be strings");
		for (unsigned m = 0; m < all.nkw; m++)
			if (str_eq(names[m], val_str(p->k)))
				run_raise(r, "an argument is given twice");
		names[all.nkw++] = val_str(p->k);
		all.at[i++] = val_force(r, &p->v);
	}
	if (caller) {
		for (unsigned m = 0; m < all.nkw; m++)
			if (str_eq(names[m], STR("caller")))
				run_raise(r, "an argument is given twice");
		names[all.nkw++] = STR("caller");
		all.at[i++] = *caller;
	}
	return all;
}

struct args node_call_args(struct run *r, const struct node *n, const struct val *caller)
{
	struct args a = node_args(r, n);

	return n->kid[K3] || n->kid[K4] || caller ? spread(r, n, a, caller) : a;
}

static struct val items(struct run *r, const struct node *n, enum vtype t)
{
	uint32_t count = 0;
	struct val v;

	for (const struct node *k = n->kid[K0]; k; k = k->next)
		count++;
	v = val_list(r, t, count);
	count = 0;
	for (const struct node *k = n->kid[K0]; k; k = k->next)
		v.at[count++] = node_eval(r, k);
	return v;
}

static struct val dict(struct run *r, const struct node *n)
{
	struct val d = dict_new(r, 0);

	for (const struct node *k = n->kid[K0]; k; k = k->next) {
		struct val key = node_eval(r, k->kid[K0]), v = node_eval(r, k->kid[K1]);

		if (!val_hashable(key))
			run_raise(r, "a %s cannot be a key", val_type_name(key));
		dict_put(r, d.dict, key, v);
	}
	return d;
}

static struct val concat(struct run *r, const struct node *n)
{
	struct val v = val_to_str(r, node_eval(r, n->kid[K0]));

	for (const struct node *k = n->kid[K0]->next; k; k = k->next)
		v = text_concat(r, v, val_to_str(r, node_eval(r, k)));
	return v;
}

static bool compare_one(struct run *r, char op, struct val a, struct val b)
{
	switch (op) {
	case '=':
		return val_equal(r, a, b);
	case '!':
		return !val_equal(r, a, b);
	case 'i':
		return val_contains(r, a, b);
	case 'n':
		return !val_contains(r, a, b);
	default:
		return val_ordered(r, op, a, b);
	}
}

static struct val compare(struct run *r, const struct node *n)
{
	struct val a = node_eval(r, n->kid[K0]), b;

	for (const struct node *k = n->kid[K1]; k; k = k->next, a = b) {
		b = node_eval(r, k->kid[K0]);
		if (!compare_one(r, (char)k->op, a, b))
			return val_bool(false);
	}
	return val_bool(true);
}

static struct val subscript(struct run *r, const struct node *n)
{
	struct val of = node_eval(r, n->kid[K0]), part[3];
	const struct node *s = n->kid[K1];

	if (s->kind != N_SLICE)
		return val_item(r, of, node_eval(r, s));
	for (int i = 0; i < 3; i++)
		part[i] = s->kid[i] ? node_eval(r, s->kid[i]) : val_of(V_NONE);
	return val_slice(r, of, &part[0], &part[1], &part[2]);
}

static struct val filter(struct run *r, const struct node *n)
{
	struct val v = node_eval(r, n->kid[K0]);
	struct args a = node_args(r, n);

	r->where = n;
	return filter_call(r, n->filter, v, &a);
}

static struct val test(struct run *r, const struct node *n)
{
	struct val v = node_eval(r, n->kid[K0]);
	struct args a = node_args(r, n);

	r->where = n;
	return val_bool(test_call(r, n->test, v, &a));
}

static struct val eval_call(struct run *r, const struct node *n)
{
	struct val f = node_eval(r, n->kid[K0]);
	struct args a = node_call_args(r, n, NULL);

	r->where = n;
	return val_call(r, f, &a);
}

static struct val eval_kind(struct run *r, const struct node *n)
{
	struct val v;

	switch (n->kind) {
	case N_TUPLE:
		return items(r, n, V_TUPLE);
	case N_LIST:
		return items(r, n, V_LIST);
	case N_DICT:
		return dict(r, n);
	case N_COND:
		if (val_truth(r, node_eval(r, n->kid[K0])))
			return node_eval(r, n->kid[K1]);
		return n->kid[K2] ? node_eval(r, n->kid[K2])
				  : undef_hint("the inline if-expression evaluated to false and no else section was "
					       "defined.");
	case N_FILTER:
		return filter(r, n);
	case N_TEST:
		return test(r, n);
	case N_CALL:
		return eval_call(r, n);
	case N_ITEM:
		return subscript(r, n);
	case N_ATTR:
		v = node_eval(r, n->kid[K0]);
		r->where = n;
		return val_attr(r, v, n->name, n->method);
	case N_CONCAT:
		return concat(r, n);
	case N_COMPARE:
		return compare(r, n);
	case N_BINARY:
		v = node_eval(r, n->kid[K0]);
		return val_binary(r, (char)n->op, v, node_eval(r, n->kid[K1]));
	case N_UNARY:
		return val_unary(r, (char)n->op, node_eval(r, n->kid[K0]));
	case N_AND:
		v = node_eval(r, n->kid[K0]);
		return val_truth(r, v) ? node_eval(r, n->kid[K1]) : v;
	case N_OR:
		v = node_eval(r, n->kid[K0]);
		return val_truth(r, v) ? v : node_eval(r, n->kid[K1]);
	case N_NOT:
		return val_bool(!val_truth(r, node_eval(r, n->kid[K0])));
	default:
		run_unsure(r, "an expression of an unknown kind");
	}
}

struct val node_eval(struct run *r, const struct node *n)
{
	struct val v;

	if (n->kind == N_CONST)
		return n->val;
	if (n->kind == N_NAME)
		return name(r, n);
	if (++r->depth > RUN_DEPTH)
		run_fail(r, TEMPLATE_LIMIT, "expressions nested too deep");
	run_step(r, 1);
	r->where = n;
	v = eval_kind(r, n);
	r->depth--;
	return v;
}
