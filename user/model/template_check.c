/* SPDX-License-Identifier: Apache-2.0
 *
 * After parsing: filters, tests and their arguments must be known, wherever they stand; break and continue must have a
 * loop around them in the same function; literals of constants become constants.
 */
#include "model/template_int.h"

#define LOOPS_MAX 20 /* Python's own limit on blocks in one function */

bool node_walk(struct node *n, bool (*visit)(struct node *n, void *ctx), void *ctx)
{
	for (; n; n = n->next) {
		if (!visit(n, ctx))
			return false;
		for (int i = 0; i < KIDS; i++)
			if (n->kid[i] && !node_walk(n->kid[i], visit, ctx))
				return false;
	}
	return true;
}

static void keyword_names(struct compiler *c, struct node *n)
{
	struct str *names;
	unsigned i = 0;

	for (const struct node *k = n->kid[K2]; k; k = k->next)
		i++;
	if (i > 200 || n->nargs > 200)
		compile_refuse(c, n->pos, "too many arguments");
	n->ref.slot = (uint16_t)i;
	n->kwnames = names = compile_get(c, (i + 1) * sizeof(*names));
	for (const struct node *k = n->kid[K2]; k; k = k->next)
		*names++ = k->name;
}

static void check_args(struct compiler *c, struct node *n, const char *what, const struct param *p)
{
	const char *wrong;

	if (n->kid[K3] || n->kid[K4])
		compile_refuse(c, n->pos, "* and ** in the arguments of a %s are not supported", what);
	keyword_names(c, n);
	wrong = args_check(p, n->nargs, n->kwnames, n->ref.slot);
	if (wrong)
		compile_refuse(c, n->pos, "%s \"%.*s\": %s", what, (int)n->name.n, n->name.p, wrong);
}

/* map('upper'), select('defined'), selectattr('a', 'equalto', v): the name is an argument. */
static void check_named(struct compiler *c, const struct node *n)
{
	bool map = str_eq(n->name, STR("map"));
	bool by_attr = str_eq(n->name, STR("selectattr")) || str_eq(n->name, STR("rejectattr"));
	const struct node *a = n->kid[K1];
	struct str name;

	if (!map && !by_attr && !str_eq(n->name, STR("select")) && !str_eq(n->name, STR("reject")))
		return;
	if (by_attr && a)
		a = a->next;
	if (!a || a->kind != N_CONST || a->val.t != V_STR)
		return;
	name = val_str(a->val);
	if (map ? !template_filter_find(name) || !template_filter_find(name)->run
		: !template_test_find(name) || !template_test_find(name)->run)
		compile_refuse(c, a->pos, "%s \"%.*s\" is not supported", map ? "filter" : "test", (int)name.n, name.p);
}

static void check_use(struct compiler *c, struct node *n)
{
	if (n->kind == N_FILTER) {
		n->filter = template_filter_find(n->name);
		if (!n->filter || !n->filter->run)
			compile_refuse(c, n->pos, "filter \"%.*s\" is not supported", (int)n->name.n, n->name.p);
		check_args(c, n, "filter", &n->filter->p);
		check_named(c, n);
	} else if (n->kind == N_TEST) {
		n->test = template_test_find(n->name);
		if (!n->test || !n->test->run)
			compile_refuse(c, n->pos, "test \"%.*s\" is not supported", (int)n->name.n, n->name.p);
		check_args(c, n, "test", &n->test->p);
	} else if (n->kind == N_ATTR) {
		if (str_starts(n->name, STR("__")))
			compile_refuse(c, n->pos, "attribute \"%.*s\" is not supported", (int)n->name.n, n->name.p);
		n->method = template_method_find(n->name);
	} else if (n->kind == N_CALL) {
		keyword_names(c, n);
	}
}

static void fold(struct compiler *c, struct node *n)
{
	struct val v = val_of(n->kind == N_LIST ? V_LIST : V_TUPLE);

	for (const struct node *k = n->kid[K0]; k; k = k->next, v.n++)
		if (k->kind != N_CONST)
			return;
	v.at = compile_get(c, (v.n + 1) * sizeof(*v.at));
	v.n = 0;
	for (const struct node *k = n->kid[K0]; k; k = k->next)
		v.at[v.n++] = k->val;
	n->kind = N_CONST;
	n->kid[K0] = NULL;
	n->val = v;
}

static bool no_store_of_loop(struct node *n, void *ctx)
{
	if (n->kind == N_NAME && n->ctx == CTX_STORE && str_eq(n->name, STR("loop")))
		compile_refuse(ctx, n->pos, "\"loop\" cannot be assigned to inside a loop");
	return true;
}

/* <loops>: how many are open in this function. */
static void check_list(struct compiler *c, struct node *n, unsigned loops)
{
	for (; n; n = n->next) {
		unsigned inner[KIDS] = { loops, loops, loops, loops, loops };

		check_use(c, n);
		switch (n->kind) {
		case N_FOR:
			if (loops == LOOPS_MAX)
				compile_refuse(c, n->pos, "loops nested too deep");
			inner[K2] = n->flags & NF_RECURSIVE ? 1 : loops + 1;
			if (n->flags & NF_RECURSIVE)
				inner[K3] = 0;
			for (int i = 0; i < KIDS; i++)
				if (n->kid[i])
					node_walk(n->kid[i], no_store_of_loop, c);
			break;
		case N_MACRO:
			inner[K2] = 0;
			break;
		case N_CALLBLOCK:
			inner[K3] = 0;
			break;
		case N_BREAK:
		case N_CONTINUE:
			if (loops == 0)
				compile_refuse(c, n->pos, "%s outside of a loop",
					       n->kind == N_BREAK ? "break" : "continue");
			break;
		case N_NAME:
			if (n->ctx == CTX_LOAD && str_eq(n->name, STR("self")))
				compile_refuse(c, n->pos, "\"self\" is not supported");
			break;
		default:
			break;
		}
		for (int i = 0; i < KIDS; i++)
			check_list(c, n->kid[i], inner[i]);
		if ((n->kind == N_TUPLE && n->ctx == CTX_LOAD) || n->kind == N_LIST)
			fold(c, n);
	}
}

void template_check(struct compiler *c)
{
	check_list(c, c->t->body, 0);
}
