/* SPDX-License-Identifier: Apache-2.0
 *
 * Where each name lives, decided once. jinja2 turns a template into Python, in which every name of a scope is a local
 * variable of the function around it, chosen before anything runs; what a template prints depends on these choices:
 *
 *   - A scope (the template, a loop's body, a macro…) has a variable for a name if the name is stored in it, or if it
 * is read in it and no scope around it has one. `if` is no scope.
 *   - When the scope is entered, and a loop's body is at every turn, each of its variables is set: to the value of the
 *     same name's variable around it (ALIAS, if it is stored here), to what the request says (RESOLVE), or to nothing
 *     (UNDEFINED, if it is stored here before it is read).
 *   - Stores inside a branch alone make the variable begin as if it had been read first.
 *   - A scope sees the names of the scopes around it as they stand in their *whole* text, also behind this place.
 *
 * So `{% for x in y %}{{ tools }}{% endfor %}{% set tools = 1 %}` prints nothing, whatever the request's tools are: the
 * template's own scope stores the name and never reads it, so its variable begins with nothing, and the loop sees that.
 *
 * A macro is a Python function: it sees the variables around it as they are when it is called. Scopes of one function
 * share its activation; the same name at the same depth is the same slot.
 */
#include "model/template_int.h"

#define WORK_MAX 20000000 /* of copying scopes at branches: a bound against hostile templates */

struct sym {
	struct str name;
	bool ref, stored;
	uint8_t how; /* enum load_how */
	struct function *from_fn;
	uint16_t from_slot, slot, global;
};

struct function {
	struct function *up;
	struct fn *fn;
	struct ident *idents;
};

/* A variable of a function: names at a depth. */
struct ident {
	struct ident *next;
	struct str name;
	unsigned level;
	uint16_t slot;
};

struct scope {
	struct scope *up;
	struct function *fn;
	unsigned level;
	struct sym *sym;
	unsigned n, cap;
};

static void statements(struct compiler *c, struct scope *s, struct node *n);
static void compile(struct compiler *c, struct scope *s, struct node *n);

static void worked(struct compiler *c, const struct node *n, uint64_t w)
{
	c->work += w;
	if (c->work > WORK_MAX)
		compile_refuse(c, n ? n->pos : 0, "too many names in too many branches");
}

static struct scope *scope_new(struct compiler *c, struct scope *up, struct function *fn)
{
	struct scope *s = compile_get(c, sizeof(*s));

	s->up = up;
	s->fn = fn ? fn : up->fn;
	s->level = up ? up->level + 1 : 0;
	return s;
}

static struct function *function_new(struct compiler *c, struct function *up, struct fn *fn)
{
	struct function *f = compile_get(c, sizeof(*f));

	f->up = up;
	f->fn = fn;
	return f;
}

static uint16_t slot_for(struct compiler *c, struct scope *s, struct str name)
{
	struct ident *i;

	for (i = s->fn->idents; i; i = i->next)
		if (i->level == s->level && str_eq(i->name, name))
			return i->slot;
	if (s->fn->fn->slots == UINT16_MAX)
		compile_refuse(c, 0, "too many names");
	i = compile_get(c, sizeof(*i));
	*i = (struct ident){ s->fn->idents, name, s->level, s->fn->fn->slots++ };
	s->fn->idents = i;
	return i->slot;
}

static struct sym *own(struct compiler *c, struct scope *s, struct str name)
{
	worked(c, NULL, s->n / 8 + 1);
	for (unsigned i = 0; i < s->n; i++)
		if (str_eq(s->sym[i].name, name))
			return &s->sym[i];
	return NULL;
}

static struct sym *own_or_new(struct compiler *c, struct scope *s, struct str name)
{
	struct sym *y = own(c, s, name);

	if (y)
		return y;
	if (s->n == s->cap) {
		struct sym *old = s->sym;

		s->cap = s->cap ? s->cap * 2 : 16;
		s->sym = compile_get(c, s->cap * sizeof(*s->sym));
		if (s->n)
			memcpy(s->sym, old, s->n * sizeof(*old));
	}
	y = &s->sym[s->n++];
	*y = (struct sym){ .name = name };
	return y;
}

static struct sym *find(struct compiler *c, struct scope *s, struct str name, struct scope **ret_of)
{
	for (; s; s = s->up) {
		struct sym *y = own(c, s, name);

		if (y && y->ref) {
			if (ret_of)
				*ret_of = s;
			return y;
		}
	}
	return NULL;
}

static uint16_t global_of(struct compiler *c, struct str name)
{
	struct template *t = c->t;

	for (unsigned i = 0; i < t->nglobals; i++)
		if (str_eq(t->globals[i], name))
			return (uint16_t)i;
	if (t->nglobals % 32 == 0) {
		struct str *old = t->globals;

		t->globals = compile_get(c, (t->nglobals + 32) * sizeof(*t->globals));
		if (t->nglobals)
			memcpy(t->globals, old, t->nglobals * sizeof(*old));
	}
	if (t->nglobals == UINT16_MAX)
		compile_refuse(c, 0, "too many names");
	t->globals[t->nglobals] = name;
	return (uint16_t)t->nglobals++;
}

static void define(struct compiler *c, struct scope *s, struct sym *y, enum load_how how)
{
	y->ref = true;
	y->how = (uint8_t)how;
	y->slot = slot_for(c, s, y->name);
	if (how == LOAD_RESOLVE)
		y->global = global_of(c, y->name);
}

static void alias_or(struct compiler *c, struct scope *s, struct sym *y, enum load_how otherwise)
{
	struct scope *of = NULL;
	struct sym *outer = s->up ? find(c, s->up, y->name, &of) : NULL;

	define(c, s, y, outer ? LOAD_ALIAS : otherwise);
	if (outer) {
		y->from_fn = of->fn;
		y->from_slot = outer->slot;
	}
}

static void store(struct compiler *c, struct scope *s, struct str name)
{
	struct sym *y = own_or_new(c, s, name);

	y->stored = true;
	if (!y->ref)
		alias_or(c, s, y, LOAD_UNDEFINED);
}

static struct sym *parameter(struct compiler *c, struct scope *s, struct str name)
{
	struct sym *y = own_or_new(c, s, name);

	y->stored = true;
	define(c, s, y, LOAD_PARAM);
	return y;
}

static void load(struct compiler *c, struct scope *s, struct str name)
{
	if (!find(c, s, name, NULL))
		define(c, s, own_or_new(c, s, name), LOAD_RESOLVE);
}

/* --- what is seen in a scope: jinja2's FrameSymbolVisitor --- */

static void names(struct compiler *c, struct scope *s, struct node *n, bool as_param)
{
	if (as_param || n->ctx == CTX_PARAM)
		parameter(c, s, n->name);
	else if (n->ctx == CTX_STORE)
		store(c, s, n->name);
	else
		load(c, s, n->name);
}

static struct scope *branch(struct compiler *c, struct scope *s, struct node *body)
{
	struct scope *b = compile_get(c, sizeof(*b));

	worked(c, body, s->n + 1);
	*b = *s;
	if (s->n) {
		b->sym = compile_get(c, s->cap * sizeof(*s->sym));
		memcpy(b->sym, s->sym, s->n * sizeof(*s->sym));
	}
	statements(c, b, body);
	return b;
}

static void merge(struct compiler *c, struct scope *s, struct scope *const *b, unsigned n, const struct node *at)
{
	struct scope *before = compile_get(c, sizeof(*before));

	*before = *s;
	if (s->n) {
		before->sym = compile_get(c, s->cap * sizeof(*s->sym));
		memcpy(before->sym, s->sym, s->n * sizeof(*s->sym));
	}
	for (unsigned i = 0; i < n; i++) {
		worked(c, at, b[i]->n + 1);
		for (unsigned k = 0; k < b[i]->n; k++) {
			struct sym *y = own_or_new(c, s, b[i]->sym[k].name);
			bool stored = y->stored || b[i]->sym[k].stored;

			if (b[i]->sym[k].ref)
				*y = b[i]->sym[k];
			y->stored = stored;
		}
	}
	for (unsigned k = 0; k < s->n; k++) {
		struct sym *was = own(c, before, s->sym[k].name);

		if (s->sym[k].stored && !(was && was->stored))
			alias_or(c, s, &s->sym[k], LOAD_RESOLVE);
	}
}

static void see_if(struct compiler *c, struct scope *s, struct node *n)
{
	struct scope *b[3];

	statements(c, s, n->kid[K0]);
	b[0] = branch(c, s, n->kid[K1]);
	b[1] = branch(c, s, n->kid[K2]);
	b[2] = branch(c, s, n->kid[K3]);
	merge(c, s, b, 3, n);
}

static void see(struct compiler *c, struct scope *s, struct node *n, bool as_param)
{
	static const int8_t only[][3] = {
		/* what of a statement belongs to the scope around it; -1 ends */
		[N_FOR] = { K1, -1 },  [N_CALLBLOCK] = { K0, -1 },  [N_FILTERBLOCK] = { K1, -1 },
		[N_WITH] = { K1, -1 }, [N_ASSIGN] = { K1, K0, -1 }, [N_ASSIGNBLOCK] = { K0, -1 },
	};

	switch (n->kind) {
	case N_NAME:
		names(c, s, n, as_param);
		return;
	case N_NSREF:
		load(c, s, n->name);
		return;
	case N_IF:
		see_if(c, s, n);
		return;
	case N_MACRO:
		store(c, s, n->name);
		return;
	case N_FOR:
	case N_CALLBLOCK:
	case N_FILTERBLOCK:
	case N_WITH:
	case N_ASSIGN:
	case N_ASSIGNBLOCK:
		for (const int8_t *k = only[n->kind]; *k >= 0; k++)
			statements(c, s, n->kid[*k]);
		return;
	default:
		for (int i = 0; i < KIDS; i++)
			for (struct node *k = n->kid[i]; k; k = k->next)
				see(c, s, k, as_param);
	}
}

static void statements(struct compiler *c, struct scope *s, struct node *n)
{
	for (; n; n = n->next)
		see(c, s, n, false);
}

static void parameters(struct compiler *c, struct scope *s, struct node *n)
{
	for (; n; n = n->next)
		see(c, s, n, true);
}

/* --- is a name read below, before it is stored? --- */

struct undeclared {
	struct str name[3];
	bool seen[3], gone[3];
};

static bool undeclared_visit(struct node *n, void *ctx)
{
	struct undeclared *u = ctx;

	if (n->kind == N_NAME)
		for (int i = 0; i < 3; i++)
			if (u->name[i].p && str_eq(n->name, u->name[i])) {
				if (n->ctx != CTX_LOAD)
					u->gone[i] = true;
				else if (!u->gone[i])
					u->seen[i] = true;
			}
	return true;
}

/* --- places for what runs: jinja2's code generator --- */

static struct ref ref_to(struct compiler *c, const struct scope *from, const struct function *fn, uint16_t slot)
{
	struct ref r = { .slot = slot };

	for (const struct function *f = from->fn; f != fn; f = f->up)
		r.up++;
	return r;
}

static struct ref ref_name(struct compiler *c, struct scope *s, struct str name, uint32_t pos, const struct sym **ret)
{
	struct scope *of = NULL;
	struct sym *y = find(c, s, name, &of);

	if (!y)
		compile_refuse(c, pos, "\"%.*s\" cannot be used here", (int)name.n, name.p);
	if (ret)
		*ret = y;
	return ref_to(c, s, of->fn, y->slot);
}

/* Names in an expression, a target, an argument. */
static void place(struct compiler *c, struct scope *s, struct node *n, bool may_be_missing)
{
	for (; n; n = n->next) {
		const struct sym *y;

		if (n->kind == N_NAME || n->kind == N_NSREF) {
			n->ref = ref_name(c, s, n->name, n->pos, &y);
			if (y->how == LOAD_PARAM && !may_be_missing)
				n->flags |= NF_PARAM;
		}
		for (int i = 0; i < KIDS; i++)
			place(c, s, n->kid[i], may_be_missing);
	}
}

static struct frame frame_of(struct compiler *c, struct scope *s)
{
	struct load *l = compile_get(c, (s->n + 1) * sizeof(*l));
	uint16_t n = 0;

	for (unsigned i = 0; i < s->n; i++) {
		const struct sym *y = &s->sym[i];

		if (!y->ref)
			continue;
		l[n] = (struct load){ .how = y->how, .slot = y->slot, .global = y->global };
		if (y->how == LOAD_ALIAS)
			l[n].from = ref_to(c, s, y->from_fn, y->from_slot);
		n++;
	}
	return (struct frame){ l, n };
}

static void place_macro(struct compiler *c, struct scope *s, struct node *n, int args, int defaults, int body)
{
	struct plan *p = compile_get(c, sizeof(*p));
	struct scope *m = scope_new(c, s, function_new(c, s->fn, &p->fn));
	struct undeclared u = { .name = { STR("caller"), STR("kwargs"), STR("varargs") } };
	struct ref *special[] = { &p->caller, &p->kwargs, &p->varargs };
	static const uint8_t flag[] = { NF_CALLER, NF_KWARGS, NF_VARARGS };

	n->plan = p;
	s->fn->fn->captured = true;
	statements(c, m, n->kid[args]);
	statements(c, m, n->kid[defaults]);
	statements(c, m, n->kid[body]);
	node_walk(n->kid[body], undeclared_visit, &u);
	for (int i = 0; i < 3; i++) {
		bool param = false;

		for (const struct node *a = n->kid[args]; a; a = a->next)
			param |= str_eq(a->name, u.name[i]);
		if (!u.seen[i])
			continue;
		if (param && i == 0)
			compile_refuse(c, n->pos, "a parameter \"caller\" is not supported");
		if (param)
			continue;
		n->flags |= flag[i];
		special[i]->slot = parameter(c, m, u.name[i])->slot;
	}
	place(c, m, n->kid[args], false);
	place(c, m, n->kid[defaults], true);
	compile(c, m, n->kid[body]);
	p->frame = frame_of(c, m);
	if (n->kind == N_MACRO)
		p->loop = ref_name(c, s, n->name, n->pos, NULL);
}

static struct node *copy_of(struct compiler *c, const struct node *n)
{
	struct node *copy;

	if (!n)
		return NULL;
	copy = compile_get(c, sizeof(*copy));
	*copy = *n;
	copy->next = copy_of(c, n->next);
	copy->kid[K0] = copy_of(c, n->kid[K0]);
	return copy;
}

static void place_for(struct compiler *c, struct scope *s, struct node *n)
{
	struct plan *p = compile_get(c, sizeof(*p));
	bool recursive = n->flags & NF_RECURSIVE;
	struct undeclared u = { .name = { STR("loop") } };
	struct function *fn = recursive ? function_new(c, s->fn, &p->fn) : s->fn;
	struct scope *body = scope_new(c, s, fn), *els = scope_new(c, s, fn), *test;

	n->plan = p;
	node_walk(n->kid[K2], undeclared_visit, &u);
	if (recursive || u.seen[0]) {
		n->flags |= NF_EXTENDED;
		p->loop.slot = parameter(c, body, STR("loop"))->slot;
	}
	parameters(c, body, n->kid[K0]);
	statements(c, body, n->kid[K2]);
	if (n->kid[K3])
		statements(c, els, n->kid[K3]);
	place(c, s, n->kid[K1], false);
	if (n->kid[K4]) {
		test = scope_new(c, s, function_new(c, s->fn, &p->test_fn));
		s->fn->fn->captured = true;
		parameters(c, test, n->kid[K0]);
		statements(c, test, n->kid[K4]);
		p->test_target = copy_of(c, n->kid[K0]);
		place(c, test, p->test_target, false);
		place(c, test, n->kid[K4], false);
		p->test = frame_of(c, test);
	}
	if (recursive)
		s->fn->fn->captured = true;
	place(c, body, n->kid[K0], false);
	compile(c, body, n->kid[K2]);
	p->frame = frame_of(c, body);
	compile(c, els, n->kid[K3]);
	p->els = frame_of(c, els);
}

static void place_block(struct compiler *c, struct scope *s, struct node *n)
{
	struct plan *p = compile_get(c, sizeof(*p));
	struct scope *b = scope_new(c, s, NULL);

	n->plan = p;
	switch (n->kind) {
	case N_WITH:
		statements(c, b, n->kid[K0]);
		statements(c, b, n->kid[K2]);
		place(c, b, n->kid[K0], false);
		place(c, s, n->kid[K1], false);
		compile(c, b, n->kid[K2]);
		break;
	case N_FILTERBLOCK:
		statements(c, b, n->kid[K0]);
		statements(c, b, n->kid[K1]);
		place(c, b, n->kid[K1], false);
		compile(c, b, n->kid[K0]);
		break;
	default: /* N_ASSIGNBLOCK */
		statements(c, b, n->kid[K2]);
		place(c, s, n->kid[K0], false);
		place(c, b, n->kid[K1], false);
		compile(c, b, n->kid[K2]);
	}
	p->frame = frame_of(c, b);
}

static void compile(struct compiler *c, struct scope *s, struct node *n)
{
	for (; n; n = n->next) {
		switch (n->kind) {
		case N_IF:
			place(c, s, n->kid[K0], false);
			for (int i = K1; i <= K3; i++)
				compile(c, s, n->kid[i]);
			break;
		case N_FOR:
			place_for(c, s, n);
			break;
		case N_MACRO:
			place_macro(c, s, n, K0, K1, K2);
			break;
		case N_CALLBLOCK:
			place_macro(c, s, n, K1, K2, K3);
			if (n->kid[K0])
				place(c, s, n->kid[K0], false);
			break;
		case N_WITH:
		case N_FILTERBLOCK:
		case N_ASSIGNBLOCK:
			place_block(c, s, n);
			break;
		case N_ASSIGN:
		case N_OUTPUT:
			for (int i = 0; i < KIDS; i++)
				place(c, s, n->kid[i], false);
			break;
		default:
			break;
		}
	}
}

void template_scope(struct compiler *c)
{
	struct scope *root = scope_new(c, NULL, function_new(c, NULL, &c->t->fn));

	statements(c, root, c->t->body);
	compile(c, root, c->t->body);
	c->t->frame = frame_of(c, root);
}
