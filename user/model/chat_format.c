/* SPDX-License-Identifier: Apache-2.0
 *
 * Does a template loop over the parts of a message's content, or print it as a string? vLLM decides by the template's
 * tree and hands content over accordingly; this is its analysis. A loop over `content` of a loop variable over the
 * messages makes it parts: through assignments, filters, tests and slices, and into macros that are called with such a
 * content; or a loop over a name `content` outside of macros. A target of another shape on the way ends the analysis,
 * and content is a string.
 */
#include "model/chat_int.h"

#define NAMES_MAX 256

struct nodes {
	struct node **at;
	unsigned n, cap;
	uint8_t kind;
	struct compiler *c;
};

static bool collect(struct node *n, void *ctx)
{
	struct nodes *x = ctx;

	if (n->kind != x->kind)
		return true;
	if (x->n == x->cap) {
		struct node **more = compile_get(x->c, (x->cap * 2 + 16) * sizeof(struct node *));

		if (x->n)
			memcpy(more, x->at, x->n * sizeof(*more));
		x->at = more;
		x->cap = x->cap * 2 + 16;
	}
	x->at[x->n++] = n;
	return true;
}

static struct nodes all_of(struct compiler *c, struct node *root, uint8_t kind)
{
	struct nodes x = { .kind = kind, .c = c };

	if (root)
		node_walk(root, collect, &x);
	return x;
}

/* <n> is the name <var>, or its member <key>, under any number of filters, tests and slices. */
static bool reads(const struct node *n, struct str var, const char *key)
{
	for (;;) {
		if ((n->kind == N_FILTER && n->kid[K0]) || n->kind == N_TEST ||
		    (n->kind == N_ITEM && n->kid[K1]->kind == N_SLICE))
			n = n->kid[K0];
		else
			break;
	}
	if (key) {
		if (!(n->kind == N_ITEM && n->kid[K1]->kind == N_CONST && val_is(n->kid[K1]->val, str_of(key))) &&
		    !(n->kind == N_ATTR && str_eq(n->name, str_of(key))))
			return false;
		n = n->kid[K0];
	}
	return n->kind == N_NAME && n->ctx == CTX_LOAD && str_eq(n->name, var);
}

struct analysis {
	struct nodes assigns, loops, macros, calls;
	struct str lists[NAMES_MAX], items[NAMES_MAX];
	unsigned nlists, nitems;
	bool undecided;
};

static bool add(struct str *names, unsigned *n, struct str name)
{
	for (unsigned i = 0; i < *n; i++)
		if (str_eq(names[i], name))
			return true;
	if (*n == NAMES_MAX)
		return false;
	names[(*n)++] = name;
	return true;
}

/* Names that hold the messages, and loop variables over them. */
static bool find_names(struct analysis *a)
{
	a->lists[0] = STR("messages");
	a->nlists = 1;
	for (unsigned i = 0; i < a->nlists; i++)
		for (unsigned k = 0; k < a->assigns.n; k++) {
			const struct node *n = a->assigns.at[k];

			if (reads(n->kid[K1], a->lists[i], NULL) &&
			    (n->kid[K0]->kind != N_NAME || !add(a->lists, &a->nlists, n->kid[K0]->name)))
				return false;
		}
	for (unsigned k = 0; k < a->loops.n; k++) {
		const struct node *n = a->loops.at[k];
		bool over = false;

		for (unsigned i = 0; i < a->nlists; i++)
			over |= reads(n->kid[K1], a->lists[i], NULL);
		if (over && (n->kid[K0]->kind != N_NAME || !add(a->items, &a->nitems, n->kid[K0]->name)))
			return false;
	}
	return true;
}

static bool reads_content(const struct analysis *a, const struct node *n)
{
	for (unsigned i = 0; i < a->nitems; i++)
		if (reads(n, a->items[i], "content"))
			return true;
	return false;
}

/* Is <name> a parameter of the macro that some call fills with a content? */
static bool gets_content(const struct analysis *a, const struct node *macro, struct str name)
{
	for (unsigned k = 0; k < a->calls.n; k++) {
		const struct node *call = a->calls.at[k], *arg;

		if (call->kid[K0]->kind != N_NAME || !str_eq(call->kid[K0]->name, macro->name))
			continue;
		arg = call->kid[K1];
		for (const struct node *p = macro->kid[K0]; p; p = p->next) {
			if (arg && str_eq(p->name, name) && reads_content(a, arg))
				return true;
			arg = arg ? arg->next : NULL;
		}
		for (const struct node *kw = call->kid[K2]; kw; kw = kw->next)
			for (const struct node *p = macro->kid[K0]; p; p = p->next)
				if (str_eq(p->name, kw->name) && str_eq(p->name, name) && reads_content(a, kw->kid[K0]))
					return true;
	}
	return false;
}

/* Is a namespace made with the messages as a member? */
static bool keeps_in_namespace(const struct analysis *a)
{
	for (unsigned k = 0; k < a->assigns.n; k++) {
		const struct node *call = a->assigns.at[k]->kid[K1];

		if (call->kind != N_CALL || call->kid[K0]->kind != N_NAME ||
		    !str_eq(call->kid[K0]->name, STR("namespace")))
			continue;
		for (const struct node *kw = call->kid[K2]; kw; kw = kw->next)
			for (unsigned i = 0; i < a->nlists; i++)
				if (reads(kw->kid[K0], a->lists[i], NULL))
					return true;
	}
	return false;
}

bool template_loops_over_parts(struct compiler *c)
{
	struct node *root = c->t->body;
	struct analysis *a = compile_get(c, sizeof(*a));
	const struct node **macro_of;

	a->assigns = all_of(c, root, N_ASSIGN);
	a->loops = all_of(c, root, N_FOR);
	a->macros = all_of(c, root, N_MACRO);
	a->calls = all_of(c, root, N_CALL);
	if (!find_names(a)) {
		c->t->parts_by = CHAT_RULE_NO_ALIASES;
		return false;
	}
	/* The last macro around each loop that has parameters with content; any macro, for the name `content`. */
	macro_of = compile_get(c, (2 * a->loops.n + 1) * sizeof(*macro_of));
	for (unsigned m = 0; m < a->macros.n; m++) {
		const struct node *macro = a->macros.at[m];
		struct nodes in = all_of(c, macro->kid[K2], N_FOR);
		bool any = false;

		for (const struct node *p = macro->kid[K0]; p; p = p->next)
			any |= gets_content(a, macro, p->name);
		for (unsigned i = 0; i < in.n; i++)
			for (unsigned k = 0; k < a->loops.n; k++)
				if (a->loops.at[k] == in.at[i]) {
					macro_of[2 * k] = macro;
					if (any)
						macro_of[2 * k + 1] = macro;
				}
	}
	for (unsigned k = 0; k < a->loops.n; k++) {
		const struct node *n = a->loops.at[k], *over = n->kid[K1];
		bool name = over->kind == N_NAME, content = name && str_eq(over->name, STR("content"));
		bool given = name && macro_of[2 * k + 1] && gets_content(a, macro_of[2 * k + 1], over->name);
		bool direct = reads_content(a, over);

		if (direct || given || (content && !macro_of[2 * k])) {
			c->t->parts_by |= direct ? 0 : given ? CHAT_RULE_BY_MACRO : CHAT_RULE_BY_NAME;
			return n->kid[K0]->kind == N_NAME;
		}
		if (content) /* in a macro: once that was enough */
			c->t->parts_by |= CHAT_RULE_BY_MACRO;
	}
	if (keeps_in_namespace(a))
		c->t->parts_by |= CHAT_RULE_NO_ALIASES;
	return false;
}
