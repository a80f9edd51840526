/* SPDX-License-Identifier: Apache-2.0
 *
 * Statements, macros and loops.
 */
#include "model/template_int.h"

/* --- activations and frames --- */

struct act *act_new(struct run *r, const struct fn *fn, struct act *up)
{
	size_t size = sizeof(struct act) + fn->slots * sizeof(struct val);
	struct act *a = fn->captured ? run_get(r, size) : template_mem_get(r->slots, size);

	if (!a)
		run_fail(r, TEMPLATE_LIMIT, "no memory for the variables");
	a->up = up;
	memset(a->slot, 0, fn->slots * sizeof(struct val)); /* V_MISSING */
	return a;
}

void frame_enter(struct run *r, const struct frame *f)
{
	for (uint16_t i = 0; i < f->n; i++) {
		const struct load *l = &f->load[i];

		if (l->how == LOAD_RESOLVE)
			r->act->slot[l->slot] = r->globals[l->global];
		else if (l->how == LOAD_ALIAS)
			r->act->slot[l->slot] = *slot_of(r, l->from);
		else if (l->how == LOAD_UNDEFINED)
			r->act->slot[l->slot] = val_of(V_MISSING);
	}
}

void frame_leave(struct run *r, const struct frame *f)
{
	for (uint16_t i = 0; i < f->n; i++)
		r->act->slot[f->load[i].slot] = val_of(V_MISSING);
}

void node_assign(struct run *r, const struct node *target, struct val v)
{
	uint32_t want = 0, got = 0;
	struct iter it;
	struct val e;

	if (target->kind == N_NAME) {
		*slot_of(r, target->ref) = v;
		return;
	}
	if (target->kind == N_NSREF) {
		dict_put(r, slot_of(r, target->ref)->dict, target->kid[K0]->val, v);
		return;
	}
	for (const struct node *k = target->kid[K0]; k; k = k->next)
		want++;
	/* Python unpacks first, then assigns. */
	if (v.t != V_LIST && v.t != V_TUPLE) {
		struct val list = val_list(r, V_LIST, want + 1);

		for (it = iter_new(r, v); got <= want && iter_next(r, &it, &e);)
			list.at[got++] = e;
		v = list;
		v.n = got;
	}
	if (v.n != want)
		run_raise(r, "%s values to unpack (expected %u)", v.n < want ? "not enough" : "too many", want);
	got = 0;
	for (const struct node *k = target->kid[K0]; k; k = k->next)
		node_assign(r, k, val_force(r, &v.at[got++]));
}

static void check_namespaces(struct run *r, const struct node *target)
{
	if (target->kind == N_NSREF && slot_of(r, target->ref)->t != V_NS)
		run_raise(r, "cannot assign attribute on non-namespace object");
	if (target->kind == N_TUPLE)
		for (const struct node *k = target->kid[K0]; k; k = k->next)
			check_namespaces(r, k);
}

/* --- macros --- */

static void bind_macro(struct run *r, const struct macro *m, const struct args *a)
{
	const struct node *n = m->node, *params = n->kid[n->kind == N_MACRO ? K0 : K1];
	const struct plan *p = n->plan;
	struct val kwargs = dict_new(r, 0), rest, caller = undef_name(STR("caller"));
	unsigned i = 0;

	for (const struct node *k = params; k; k = k->next, i++) {
		struct val *slot = &r->act->slot[k->ref.slot];

		if (i < a->n)
			*slot = a->at[i];
		for (unsigned w = 0; i >= a->n && w < a->nkw; w++)
			if (str_eq(a->names[w], k->name))
				*slot = a->at[a->n + w];
	}
	for (unsigned w = 0; w < a->nkw; w++) {
		bool is_param = false;

		i = 0;
		for (const struct node *k = params; k; k = k->next, i++)
			is_param |= i >= a->n && str_eq(a->names[w], k->name);
		if (is_param)
			continue;
		if (n->flags & NF_CALLER && str_eq(a->names[w], STR("caller")))
			caller = a->at[a->n + w];
		else if (n->flags & NF_KWARGS)
			dict_put_str(r, kwargs.dict, a->names[w], a->at[a->n + w]);
		else
			run_raise(r, "the macro takes no keyword argument '%.*s'", (int)a->names[w].n, a->names[w].p);
	}
	if (n->flags & NF_CALLER)
		r->act->slot[p->caller.slot] = caller;
	if (n->flags & NF_KWARGS)
		r->act->slot[p->kwargs.slot] = kwargs;
	if (n->flags & NF_VARARGS) {
		rest = val_list(r, V_TUPLE, a->n > n->nargs ? a->n - n->nargs : 0);
		if (rest.n)
			memcpy(rest.at, a->at + n->nargs, rest.n * sizeof(rest));
		r->act->slot[p->varargs.slot] = rest;
	} else if (a->n > n->nargs) {
		run_raise(r, "the macro takes not more than %u argument(s)", n->nargs);
	}
}

static void defaults(struct run *r, const struct node *n)
{
	const struct node *def = n->kid[n->kind == N_MACRO ? K1 : K2];
	unsigned ndef = 0, i = 0;

	for (const struct node *d = def; d; d = d->next)
		ndef++;
	for (const struct node *k = n->kid[n->kind == N_MACRO ? K0 : K1]; k; k = k->next, i++) {
		struct val *slot = &r->act->slot[k->ref.slot];
		bool has = i + ndef >= n->nargs;

		if (slot->t == V_MISSING)
			*slot = has ? node_eval(r, def) : undef_name(k->name);
		if (has)
			def = def->next;
	}
}

struct val macro_call(struct run *r, const struct macro *m, const struct args *a, bool capture)
{
	const struct node *n = m->node;
	struct template_mem mark = *r->slots;
	struct act *outer = r->act, *mine;
	struct val v = val_of(V_NONE);
	struct out o;

	if (++r->calls > CALL_DEPTH)
		run_fail(r, TEMPLATE_LIMIT, "macros call one another too deep");
	mine = act_new(r, &n->plan->fn, m->act);
	r->act = mine;
	bind_macro(r, m, a);
	frame_enter(r, &n->plan->frame);
	if (capture)
		out_capture(r, &o);
	defaults(r, n);
	node_exec(r, n->kid[n->kind == N_MACRO ? K2 : K3]);
	if (capture)
		v = out_end(r, &o);
	r->act = outer;
	r->calls--;
	/* A chunk that came meanwhile stays: its beginning is not known here. */
	if (mark.chunks == r->slots->chunks)
		r->slots->at = mark.at;
	return v;
}

static struct val macro_new(struct run *r, const struct node *n)
{
	struct macro *m = run_get(r, sizeof(*m));

	*m = (struct macro){ n, r->act };
	return (struct val){ .t = V_MACRO, .macro = m };
}

/* --- output --- */

static void print_call(struct run *r, const struct node *n)
{
	struct val f = node_eval(r, n->kid[K0]);
	struct args a = node_call_args(r, n, NULL);

	r->where = n;
	if (f.t == V_MACRO)
		macro_call(r, f.macro, &a, false);
	else
		val_print(r, val_call(r, f, &a));
}

static void print_filter(struct run *r, const struct node *n)
{
	struct val v = node_eval(r, n->kid[K0]);
	struct args a = node_args(r, n);

	r->where = n;
	if (!template_filter_print(r, n->filter, v, &a))
		val_print(r, filter_call(r, n->filter, v, &a));
}

#define SUMMANDS 24

/* a + b + c: plain strings are printed one behind the other; anything else is added up as it would be. */
static void print_sum(struct run *r, const struct node *n)
{
	const struct node *leaf[SUMMANDS];
	struct val v[SUMMANDS];
	unsigned count = 0;
	bool plain = true;

	for (; n->kind == N_BINARY && n->op == '+' && count < SUMMANDS - 1; n = n->kid[K0])
		leaf[count++] = n->kid[K1];
	leaf[count++] = n;
	for (unsigned i = count; i-- > 0;) {
		v[i] = node_eval(r, leaf[i]);
		plain &= v[i].t == V_STR && !(v[i].f & F_MARKUP);
	}
	for (unsigned i = count; plain && i-- > 0;)
		out_put(r, v[i].s, v[i].n);
	if (plain)
		return;
	for (unsigned i = count - 1; i-- > 0;)
		v[i] = val_binary(r, '+', v[i + 1], v[i]);
	val_print(r, v[0]);
}

/* What is printed need not become a string first. */
static void print_node(struct run *r, const struct node *n)
{
	if (n->kind == N_DATA)
		return out_put(r, n->name.p, n->name.n);
	run_step(r, 1);
	r->where = n;
	switch (n->kind) {
	case N_CALL:
		return print_call(r, n);
	case N_FILTER:
		return print_filter(r, n);
	case N_BINARY:
		if (n->op == '+')
			return print_sum(r, n);
		break;
	case N_CONCAT:
		for (const struct node *k = n->kid[K0]; k; k = k->next)
			val_print(r, node_eval(r, k));
		return;
	case N_COND:
		if (val_truth(r, node_eval(r, n->kid[K0])))
			print_node(r, n->kid[K1]);
		else if (n->kid[K2])
			print_node(r, n->kid[K2]);
		return;
	default:
		break;
	}
	val_print(r, node_eval(r, n));
}

/* What blocks print is not made a string first. */
static void print_text(struct run *r, struct val v)
{
	if (v.t != V_STR)
		run_raise(r, "a block's text must be a string, not a %s", val_type_name(v));
	out_put(r, v.s, v.n);
}

static void call_block(struct run *r, const struct node *n)
{
	struct val m = macro_new(r, n), f;
	struct args a = { 0 };

	if (n->flags & NF_GENERATION) {
		macro_call(r, m.macro, &a, false);
		return;
	}
	f = node_eval(r, n->kid[K0]->kid[K0]);
	a = node_call_args(r, n->kid[K0], &m);
	r->where = n;
	print_text(r, val_call(r, f, &a));
}

/* --- loops --- */

bool cond_next(struct run *r, struct gen *g, struct val *ret)
{
	const struct node *n = g->node;
	struct act *outer = r->act;
	struct val v;
	bool yes = false;

	r->act = g->act;
	while (!yes && iter_next(r, &g->src, &v)) {
		node_assign(r, n->plan->test_target, v);
		yes = val_truth(r, node_eval(r, n->kid[K4]));
	}
	r->act = outer;
	/* What comes out is what the target's names were given. */
	if (yes && n->kid[K0]->kind == N_TUPLE)
		v = val_to_list(r, v, V_TUPLE);
	*ret = v;
	return yes;
}

static struct val conditional(struct run *r, const struct node *n, struct val of)
{
	struct val g = gen_new(r, GEN_COND, of);
	struct act *outer = r->act;

	g.gen->started = true;
	g.gen->node = n;
	g.gen->src = iter_new(r, of);
	g.gen->act = act_new(r, &(struct fn){ n->plan->test_fn.slots, true }, outer);
	r->act = g.gen->act;
	frame_enter(r, &n->plan->test);
	r->act = outer;
	return g;
}

static struct loop *loop_new(struct run *r, const struct node *n, struct val of, int depth0)
{
	struct loop *l = run_get(r, sizeof(*l));

	*l = (struct loop){ .iter = iter_new(r, of), .index0 = -1, .length = -1, .depth0 = depth0 };
	if (of.t != V_GEN)
		l->length = val_len(r, of);
	l->current = l->before = l->changed = val_of(V_MISSING);
	return l;
}

static enum flow loop_body(struct run *r, const struct node *n, struct val of, struct loop *l)
{
	const struct plan *p = n->plan;
	struct iter it = l ? l->iter : iter_new(r, of);
	enum flow flow = FLOW_ON;
	bool any = false;
	struct val v;

	while (l ? loop_next(r, l, &v) : iter_next(r, &it, &v)) {
		node_assign(r, n->kid[K0], v);
		if (l)
			*slot_of(r, p->loop) = (struct val){ .t = V_LOOP, .loop = l };
		frame_enter(r, &p->frame);
		flow = node_exec_body(r, n->kid[K2]);
		if (flow == FLOW_BREAK)
			break;
		if (flow == FLOW_ON)
			any = true; /* `continue` and `break` leave before the mark that `else` looks at */
	}
	frame_leave(r, &p->frame);
	flow = FLOW_ON;
	if (n->kid[K3] && !any) {
		frame_enter(r, &p->els);
		flow = node_exec_body(r, n->kid[K3]);
		frame_leave(r, &p->els);
	}
	return flow;
}

static void recursive_body(struct run *r, const struct node *n, struct val of, struct act *up, int depth0)
{
	struct act *outer = r->act;
	struct loop *l;

	if (++r->calls > CALL_DEPTH)
		run_fail(r, TEMPLATE_LIMIT, "loops call one another too deep");
	r->act = act_new(r, &(struct fn){ n->plan->fn.slots, true }, up);
	if (n->kid[K4]) {
		struct act *mine = r->act;

		r->act = up;
		of = conditional(r, n, of);
		r->act = mine;
	}
	l = loop_new(r, n, of, depth0);
	l->recurse = n;
	l->act = up;
	loop_body(r, n, of, l);
	r->act = outer;
	r->calls--;
}

struct val loop_call(struct run *r, struct loop *l, struct val of)
{
	struct out o;

	if (!l->recurse)
		run_raise(r, "The loop must have the 'recursive' marker to be called recursively.");
	out_capture(r, &o);
	recursive_body(r, l->recurse, of, l->act, l->depth0 + 1);
	return out_end(r, &o);
}

static enum flow exec_for(struct run *r, const struct node *n)
{
	struct val of = node_eval(r, n->kid[K1]);

	r->where = n;
	if (n->flags & NF_RECURSIVE) {
		recursive_body(r, n, of, r->act, 0);
		return FLOW_ON;
	}
	if (n->kid[K4])
		of = conditional(r, n, of);
	return loop_body(r, n, of, n->flags & NF_EXTENDED ? loop_new(r, n, of, 0) : NULL);
}

/* --- the rest --- */

static enum flow exec_if(struct run *r, const struct node *n)
{
	if (val_truth(r, node_eval(r, n->kid[K0])))
		return node_exec_body(r, n->kid[K1]);
	for (const struct node *k = n->kid[K2]; k; k = k->next)
		if (val_truth(r, node_eval(r, k->kid[K0])))
			return node_exec_body(r, k->kid[K1]);
	return node_exec_body(r, n->kid[K3]);
}

/* The filters of a block on its text: the innermost has no node of its own. */
static struct val filtered(struct run *r, const struct node *n, struct val text)
{
	struct args a;

	if (!n)
		return text;
	text = filtered(r, n->kid[K0], text);
	a = node_args(r, n);
	r->where = n;
	return filter_call(r, n->filter, text, &a);
}

static enum flow exec_captured(struct run *r, const struct node *n)
{
	bool set = n->kind == N_ASSIGNBLOCK;
	enum flow flow;
	struct out o;
	struct val v;

	frame_enter(r, &n->plan->frame);
	out_capture(r, &o);
	flow = node_exec_body(r, n->kid[set ? K2 : K0]);
	v = out_end(r, &o);
	if (flow != FLOW_ON)
		return flow;
	if (set) {
		check_namespaces(r, n->kid[K0]);
		node_assign(r, n->kid[K0], filtered(r, n->kid[K1], v));
	} else {
		print_text(r, filtered(r, n->kid[K1], v));
	}
	frame_leave(r, &n->plan->frame);
	return FLOW_ON;
}

static enum flow exec_with(struct run *r, const struct node *n)
{
	const struct node *value = n->kid[K1];
	enum flow flow;

	frame_enter(r, &n->plan->frame);
	for (const struct node *t = n->kid[K0]; t; t = t->next, value = value->next)
		node_assign(r, t, node_eval(r, value));
	flow = node_exec_body(r, n->kid[K2]);
	if (flow == FLOW_ON)
		frame_leave(r, &n->plan->frame);
	return flow;
}

static enum flow exec_one(struct run *r, const struct node *n)
{
	switch (n->kind) {
	case N_OUTPUT:
		for (const struct node *k = n->kid[K0]; k; k = k->next)
			print_node(r, k);
		return FLOW_ON;
	case N_FOR:
		return exec_for(r, n);
	case N_IF:
		return exec_if(r, n);
	case N_MACRO:
		*slot_of(r, n->plan->loop) = macro_new(r, n);
		return FLOW_ON;
	case N_CALLBLOCK:
		call_block(r, n);
		return FLOW_ON;
	case N_WITH:
		return exec_with(r, n);
	case N_ASSIGN:
		check_namespaces(r, n->kid[K0]);
		node_assign(r, n->kid[K0], node_eval(r, n->kid[K1]));
		return FLOW_ON;
	case N_BREAK:
		return FLOW_BREAK;
	case N_CONTINUE:
		return FLOW_CONTINUE;
	default:
		return exec_captured(r, n);
	}
}

enum flow node_exec_body(struct run *r, const struct node *n)
{
	enum flow flow = FLOW_ON;

	if (++r->depth > RUN_DEPTH)
		run_fail(r, TEMPLATE_LIMIT, "statements nested too deep");
	for (; n && flow == FLOW_ON; n = n->next) {
		run_step(r, 1);
		flow = exec_one(r, n);
	}
	r->depth--;
	return flow;
}

void node_exec(struct run *r, const struct node *body)
{
	node_exec_body(r, body);
}
