/* SPDX-License-Identifier: Apache-2.0
 *
 * Statements. The grammar is jinja2's parser, method for method; what it takes and we do not run is refused here.
 */
#include <stdarg.h>
#include <stdio.h>

#include "model/template_int.h"

static struct node *statements(struct compiler *c, const char *const *ends, bool drop);

bool tok_is(const struct token *t, const char *name)
{
	return t->type == T_NAME && str_eq(t->text, str_of(name));
}

const char *tok_describe(const struct token *t, char buf[48])
{
	static const char *const names[] = { "end of the template",
					     "text",
					     "{{",
					     "}}",
					     "{%",
					     "%}",
					     NULL,
					     "a string",
					     "a number",
					     "a number",
					     "+",
					     "-",
					     "/",
					     "//",
					     "*",
					     "%",
					     "**",
					     "~",
					     "[",
					     "]",
					     "(",
					     ")",
					     "{",
					     "}",
					     "==",
					     "!=",
					     ">",
					     ">=",
					     "<",
					     "<=",
					     "=",
					     ".",
					     ":",
					     "|",
					     ",",
					     ";" };

	if (t->type == T_NAME)
		snprintf(buf, 48, "\"%.*s\"", (int)(t->text.n > 40 ? 40 : t->text.n), t->text.p);
	else
		snprintf(buf, 48, "%s", names[t->type]);
	return buf;
}

static noreturn void unexpected(struct compiler *c, const char *wanted)
{
	const struct token *t = tok_now(c);
	char buf[48];

	compile_refuse(c, t->pos, "expected %s, got %s", wanted, tok_describe(t, buf));
}

const struct token *tok_expect(struct compiler *c, enum tok type)
{
	struct token want = { .type = (uint8_t)type };
	char buf[48];

	if (tok_now(c)->type != type)
		unexpected(c, type == T_NAME ? "a name" : tok_describe(&want, buf));
	return tok_next(c);
}

bool tok_skip(struct compiler *c, enum tok type)
{
	bool is = tok_now(c)->type == type;

	if (is)
		tok_next(c);
	return is;
}

bool tok_skip_name(struct compiler *c, const char *name)
{
	bool is = tok_is(tok_now(c), name);

	if (is)
		tok_next(c);
	return is;
}

struct node *node_new(struct compiler *c, enum kind kind, uint32_t pos)
{
	struct node *n = compile_get(c, sizeof(*n));

	n->kind = (uint8_t)kind;
	n->pos = pos;
	return n;
}

static struct node *begin(struct compiler *c, enum kind kind)
{
	return node_new(c, kind, tok_next(c)->pos);
}

static void append(struct node ***tail, struct node *n)
{
	**tail = n;
	*tail = &n->next;
}

/* --- targets --- */

static void set_ctx(struct compiler *c, struct node *n, enum ctx ctx)
{
	if (n->kind == N_TUPLE) {
		n->ctx = (uint8_t)ctx;
		for (struct node *k = n->kid[K0]; k; k = k->next)
			set_ctx(c, k, ctx);
	} else if (n->kind == N_NAME) {
		n->ctx = (uint8_t)ctx;
	} else if (n->kind != N_NSREF) {
		compile_refuse(c, n->pos, "this cannot be assigned to");
	}
}

struct node *parse_target(struct compiler *c, bool name_only, struct str end, bool with_namespace)
{
	struct node *n;

	if (name_only) {
		const struct token *t = tok_expect(c, T_NAME);

		n = node_new(c, N_NAME, t->pos);
		n->name = t->text;
	} else {
		n = parse_tuple(c, true, true, end, false, with_namespace);
	}
	set_ctx(c, n, CTX_STORE);
	if (n->kind == N_NAME)
		for (const char *const *k =
			     (const char *const[]){ "true", "false", "none", "True", "False", "None", NULL };
		     *k; k++)
			if (str_eq(n->name, str_of(*k)))
				compile_refuse(c, n->pos, "\"%s\" cannot be assigned to", *k);
	return n;
}

void parse_signature(struct compiler *c, struct node *n, unsigned args, unsigned defaults)
{
	struct node **arg = &n->kid[args], **def = &n->kid[defaults];

	tok_expect(c, T_LPAREN);
	while (tok_now(c)->type != T_RPAREN) {
		struct node *a;

		if (n->kid[args])
			tok_expect(c, T_COMMA);
		a = parse_target(c, true, (struct str){ 0 }, false);
		a->ctx = CTX_PARAM;
		for (struct node *b = n->kid[args]; b; b = b->next)
			if (str_eq(a->name, b->name))
				compile_refuse(c, a->pos, "parameter \"%.*s\" twice", (int)a->name.n, a->name.p);
		append(&arg, a);
		n->nargs++;
		if (tok_skip(c, T_ASSIGN))
			append(&def, parse_expression(c, true));
		else if (n->kid[defaults])
			compile_refuse(c, a->pos, "parameter without a default behind one with a default");
	}
	tok_expect(c, T_RPAREN);
}

/* --- statements --- */

#define ENDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static struct node *parse_for(struct compiler *c)
{
	struct node *n = begin(c, N_FOR);

	n->kid[K0] = parse_target(c, false, STR("in"), false);
	if (!tok_skip_name(c, "in"))
		unexpected(c, "\"in\"");
	n->kid[K1] = parse_tuple(c, false, false, STR("recursive"), false, false);
	if (tok_skip_name(c, "if"))
		n->kid[K4] = parse_expression(c, true);
	if (tok_skip_name(c, "recursive"))
		n->flags |= NF_RECURSIVE;
	n->kid[K2] = statements(c, ENDS("endfor", "else"), false);
	if (tok_is(tok_next(c), "else"))
		n->kid[K3] = statements(c, ENDS("endfor"), true);
	return n;
}

static struct node *parse_if(struct compiler *c)
{
	struct node *first = begin(c, N_IF), *n = first, **tail = &first->kid[K2];

	for (;;) {
		const struct token *t;

		n->kid[K0] = parse_tuple(c, false, false, (struct str){ 0 }, false, false);
		n->kid[K1] = statements(c, ENDS("elif", "else", "endif"), false);
		t = tok_next(c);
		if (tok_is(t, "elif")) {
			n = node_new(c, N_IF, t->pos);
			append(&tail, n);
			continue;
		}
		if (tok_is(t, "else"))
			first->kid[K3] = statements(c, ENDS("endif"), true);
		return first;
	}
}

static struct node *parse_set(struct compiler *c)
{
	uint32_t pos = tok_next(c)->pos;
	struct node *target = parse_target(c, false, (struct str){ 0 }, true), *n;

	if (tok_skip(c, T_ASSIGN)) {
		n = node_new(c, N_ASSIGN, pos);
		n->kid[K0] = target;
		n->kid[K1] = parse_tuple(c, false, true, (struct str){ 0 }, false, false);
		return n;
	}
	n = node_new(c, N_ASSIGNBLOCK, pos);
	n->kid[K0] = target;
	n->kid[K1] = parse_filter(c, NULL, false);
	n->kid[K2] = statements(c, ENDS("endset"), true);
	return n;
}

static struct node *parse_with(struct compiler *c)
{
	struct node *n = begin(c, N_WITH), **target = &n->kid[K0], **value = &n->kid[K1];

	while (tok_now(c)->type != T_BLOCK_END) {
		struct node *t;

		if (n->kid[K0])
			tok_expect(c, T_COMMA);
		t = parse_target(c, false, (struct str){ 0 }, false);
		set_ctx(c, t, CTX_PARAM);
		append(&target, t);
		tok_expect(c, T_ASSIGN);
		append(&value, parse_expression(c, true));
	}
	n->kid[K2] = statements(c, ENDS("endwith"), true);
	return n;
}

static struct node *parse_macro(struct compiler *c)
{
	struct node *n = begin(c, N_MACRO);

	n->name = parse_target(c, true, (struct str){ 0 }, false)->name;
	parse_signature(c, n, K0, K1);
	n->kid[K2] = statements(c, ENDS("endmacro"), true);
	return n;
}

static struct node *parse_call_block(struct compiler *c)
{
	struct node *n = begin(c, N_CALLBLOCK);

	if (tok_now(c)->type == T_LPAREN)
		parse_signature(c, n, K1, K2);
	n->kid[K0] = parse_expression(c, true);
	if (n->kid[K0]->kind != N_CALL)
		compile_refuse(c, n->kid[K0]->pos, "expected a call");
	n->kid[K3] = statements(c, ENDS("endcall"), true);
	return n;
}

static struct node *parse_generation(struct compiler *c)
{
	struct node *n = begin(c, N_CALLBLOCK);

	n->flags |= NF_GENERATION;
	n->kid[K3] = statements(c, ENDS("endgeneration"), true);
	return n;
}

static struct node *parse_filter_block(struct compiler *c)
{
	struct node *n = begin(c, N_FILTERBLOCK);

	n->kid[K1] = parse_filter(c, NULL, true);
	n->kid[K0] = statements(c, ENDS("endfilter"), true);
	return n;
}

static struct node *parse_print(struct compiler *c)
{
	struct node *n = begin(c, N_OUTPUT), **tail = &n->kid[K0];

	while (tok_now(c)->type != T_BLOCK_END) {
		if (n->kid[K0])
			tok_expect(c, T_COMMA);
		append(&tail, parse_expression(c, true));
	}
	return n;
}

static struct node *parse_break(struct compiler *c)
{
	return begin(c, N_BREAK);
}

static struct node *parse_continue(struct compiler *c)
{
	return begin(c, N_CONTINUE);
}

static struct node *statement(struct compiler *c)
{
	static const struct {
		const char *name;
		struct node *(*parse)(struct compiler *c);
	} table[] = {
		{ "for", parse_for },
		{ "if", parse_if },
		{ "set", parse_set },
		{ "macro", parse_macro },
		{ "print", parse_print },
		{ "with", parse_with },
		{ "call", parse_call_block },
		{ "filter", parse_filter_block },
		{ "generation", parse_generation },
		{ "break", parse_break },
		{ "continue", parse_continue },
	};
	const struct token *t = tok_now(c);
	char buf[48];

	if (t->type != T_NAME)
		unexpected(c, "a tag's name");
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (tok_is(t, table[i].name))
			return table[i].parse(c);
	compile_refuse(c, t->pos, "tag %s is not supported", tok_describe(t, buf));
}

static bool ends(const struct compiler *c, const char *const *names)
{
	for (; names && *names; names++)
		if (tok_is(tok_now(c), *names))
			return true;
	return false;
}

/* Up to one of <names>, which is the token that follows then; or to the end of the template. */
static struct node *body(struct compiler *c, const char *const *names)
{
	struct node *first = NULL, **tail = &first, *out = NULL, **printed = NULL, *n;

	for (;;) {
		const struct token *t = tok_now(c);

		if (t->type == T_EOF)
			break;
		if (t->type == T_BLOCK) {
			tok_next(c);
			if (ends(c, names))
				return first;
			out = NULL;
			append(&tail, statement(c));
			tok_expect(c, T_BLOCK_END);
			continue;
		}
		if (!out) {
			out = node_new(c, N_OUTPUT, t->pos);
			printed = &out->kid[K0];
			append(&tail, out);
		}
		tok_next(c);
		if (t->type == T_DATA) {
			n = node_new(c, N_DATA, t->pos);
			n->name = t->text;
		} else {
			n = parse_tuple(c, false, true, (struct str){ 0 }, false, false);
			tok_expect(c, T_VAR_END);
		}
		append(&printed, n);
	}
	if (names)
		compile_refuse(c, tok_now(c)->pos, "the template ends, but {%% %s %%} is missing", names[0]);
	return first;
}

static struct node *statements(struct compiler *c, const char *const *names, bool drop)
{
	struct node *n;

	if (++c->stmts > STATEMENT_DEPTH)
		compile_refuse(c, tok_now(c)->pos, "statements nested too deep");
	tok_skip(c, T_COLON);
	tok_expect(c, T_BLOCK_END);
	n = body(c, names);
	if (drop)
		tok_next(c);
	c->stmts--;
	return n;
}

void template_parse(struct compiler *c)
{
	c->t->body = body(c, NULL);
}
