/* SPDX-License-Identifier: Apache-2.0
 *
 * Expressions, from loose to tight: ternary, or, and, not, comparisons and "in", + -, ~, * / // %, **, signs, filters
 * and tests, postfixes. Two things are as they are in jinja2 and nowhere else: ~ binds tighter than +, and ** to the
 * left.
 */
#include "model/template_int.h"

static struct node *parse_or(struct compiler *c);
static struct node *parse_unary(struct compiler *c, bool with_filter);

static struct node *grow(struct compiler *c, struct node *n)
{
	unsigned h = 0;

	for (int i = 0; i < KIDS; i++)
		for (const struct node *k = n->kid[i]; k; k = k->next)
			h = k->height > h ? k->height : h;
	if (h >= EXPR_DEPTH)
		compile_refuse(c, n->pos, "expression nested too deep");
	n->height = (uint16_t)(h + 1);
	return n;
}

static struct node *of_two(struct compiler *c, enum kind kind, char op, uint32_t pos, struct node *a, struct node *b)
{
	struct node *n = node_new(c, kind, pos);

	n->op = (uint8_t)op;
	n->kid[K0] = a;
	n->kid[K1] = b;
	return grow(c, n);
}

static struct node *of_one(struct compiler *c, enum kind kind, char op, uint32_t pos, struct node *a)
{
	return of_two(c, kind, op, pos, a, NULL);
}

static void enter(struct compiler *c)
{
	if (++c->depth > EXPR_DEPTH)
		compile_refuse(c, tok_now(c)->pos, "expression nested too deep");
}

static struct node *constant(struct compiler *c, uint32_t pos, struct val v)
{
	struct node *n = node_new(c, N_CONST, pos);

	n->val = v;
	return n;
}

/* --- primary --- */

static struct node *parse_name(struct compiler *c, bool with_namespace)
{
	const struct token *t = tok_next(c);
	struct node *n;

	if (tok_is(t, "true") || tok_is(t, "True"))
		return constant(c, t->pos, val_bool(true));
	if (tok_is(t, "false") || tok_is(t, "False"))
		return constant(c, t->pos, val_bool(false));
	if (tok_is(t, "none") || tok_is(t, "None"))
		return constant(c, t->pos, val_of(V_NONE));
	if (with_namespace && tok_skip(c, T_DOT)) {
		n = node_new(c, N_NSREF, t->pos);
		n->name = t->text;
		n->kid[K0] = constant(c, t->pos, val_of(V_NONE));
		n->kid[K0]->val = val_strn(tok_now(c)->text.p, tok_now(c)->text.n);
		tok_expect(c, T_NAME);
		return n;
	}
	n = node_new(c, N_NAME, t->pos);
	n->name = t->text;
	return n;
}

static struct node *parse_strings(struct compiler *c)
{
	const struct token *t = tok_next(c);
	struct str s = t->text;

	while (tok_now(c)->type == T_STRING) {
		struct str more = tok_next(c)->text;
		char *p = compile_get(c, s.n + more.n + 1);

		memcpy(p, s.p, s.n);
		memcpy(p + s.n, more.p, more.n);
		s = (struct str){ p, s.n + more.n };
	}
	return constant(c, t->pos, val_strn(s.p, s.n));
}

static struct node *parse_items(struct compiler *c, bool dict)
{
	enum tok close = dict ? T_RBRACE : T_RBRACKET;
	struct node *n = node_new(c, dict ? N_DICT : N_LIST, tok_next(c)->pos), **tail = &n->kid[K0];

	while (tok_now(c)->type != close) {
		struct node *item;

		if (n->kid[K0])
			tok_expect(c, T_COMMA);
		if (tok_now(c)->type == close)
			break;
		item = parse_expression(c, true);
		if (dict) {
			tok_expect(c, T_COLON);
			item = of_two(c, N_PAIR, 0, item->pos, item, parse_expression(c, true));
		}
		*tail = item;
		tail = &item->next;
	}
	tok_expect(c, close);
	return grow(c, n);
}

struct node *parse_primary(struct compiler *c, bool with_namespace)
{
	const struct token *t = tok_now(c);
	struct node *n;
	char buf[48];

	switch (t->type) {
	case T_NAME:
		return parse_name(c, with_namespace);
	case T_STRING:
		return parse_strings(c);
	case T_INT:
	case T_FLOAT:
		tok_next(c);
		return constant(c, t->pos, t->num);
	case T_LPAREN:
		tok_next(c);
		enter(c);
		n = parse_tuple(c, false, true, (struct str){ 0 }, true, false);
		c->depth--;
		tok_expect(c, T_RPAREN);
		return n;
	case T_LBRACKET:
	case T_LBRACE:
		return parse_items(c, t->type == T_LBRACE);
	default:
		compile_refuse(c, t->pos, "unexpected %s", tok_describe(t, buf));
	}
}

static bool tuple_ends(const struct compiler *c, struct str end)
{
	const struct token *t = tok_now(c);

	return t->type == T_VAR_END || t->type == T_BLOCK_END || t->type == T_RPAREN ||
	       (end.p && t->type == T_NAME && str_eq(t->text, end));
}

struct node *parse_tuple(struct compiler *c, bool simplified, bool with_cond, struct str end, bool parens,
			 bool with_namespace)
{
	struct node *first = NULL, **tail = &first, *n;
	uint32_t pos = tok_now(c)->pos;
	bool tuple = false;

	for (;;) {
		if (first)
			tok_expect(c, T_COMMA);
		if (tuple_ends(c, end))
			break;
		n = simplified ? parse_primary(c, with_namespace) : parse_expression(c, with_cond);
		*tail = n;
		tail = &n->next;
		if (tok_now(c)->type != T_COMMA)
			break;
		tuple = true;
	}
	if (!tuple && first)
		return first;
	if (!tuple && !parens)
		compile_refuse(c, tok_now(c)->pos, "expected an expression");
	n = node_new(c, N_TUPLE, pos);
	n->kid[K0] = first;
	return grow(c, n);
}

/* --- calls, filters, tests --- */

/* The arguments into the kids 1 to 4 of <n>. */
static void parse_call_args(struct compiler *c, struct node *n)
{
	struct node **arg = &n->kid[K1], **kw = &n->kid[K2];
	const struct token *open = tok_expect(c, T_LPAREN);
	bool comma = false;

	for (; tok_now(c)->type != T_RPAREN; comma = true) {
		const struct token *t;
		struct node *k;

		if (comma) {
			tok_expect(c, T_COMMA);
			if (tok_now(c)->type == T_RPAREN)
				break;
		}
		t = tok_now(c);
		if (t->type == T_MUL || t->type == T_POW) {
			bool kws = t->type == T_POW;

			if (n->kid[K4] || (!kws && n->kid[K3]))
				compile_refuse(c, open->pos, "invalid syntax for a call");
			tok_next(c);
			n->kid[kws ? K4 : K3] = parse_expression(c, true);
		} else if (t->type == T_NAME && t[1].type == T_ASSIGN) {
			if (n->kid[K4])
				compile_refuse(c, open->pos, "invalid syntax for a call");
			c->at += 2;
			k = of_one(c, N_KEYWORD, 0, t->pos, parse_expression(c, true));
			k->name = t->text;
			for (struct node *o = n->kid[K2]; o; o = o->next)
				if (str_eq(o->name, k->name))
					compile_refuse(c, t->pos, "argument \"%.*s\" twice", (int)k->name.n, k->name.p);
			*kw = k;
			kw = &k->next;
		} else {
			if (n->kid[K2] || n->kid[K3] || n->kid[K4])
				compile_refuse(c, open->pos, "invalid syntax for a call");
			k = parse_expression(c, true);
			*arg = k;
			arg = &k->next;
			n->nargs++;
		}
	}
	tok_expect(c, T_RPAREN);
}

static struct node *parse_call(struct compiler *c, struct node *of)
{
	struct node *n = node_new(c, N_CALL, tok_now(c)->pos);

	n->kid[K0] = of;
	parse_call_args(c, n);
	return grow(c, n);
}

/* A name with dots; only those without are known. */
static struct str dotted(struct compiler *c)
{
	const struct token *t = tok_expect(c, T_NAME);

	if (tok_now(c)->type == T_DOT)
		compile_refuse(c, t->pos, "\"%.*s.…\" is not known", (int)t->text.n, t->text.p);
	return t->text;
}

struct node *parse_filter(struct compiler *c, struct node *of, bool inline_first)
{
	while (inline_first || tok_skip(c, T_PIPE)) {
		struct node *n = node_new(c, N_FILTER, tok_now(c)->pos);

		inline_first = false;
		n->name = dotted(c);
		n->kid[K0] = of;
		if (tok_now(c)->type == T_LPAREN)
			parse_call_args(c, n);
		of = grow(c, n);
	}
	return of;
}

static struct node *parse_postfix(struct compiler *c, struct node *n);

static struct node *parse_test(struct compiler *c, struct node *of)
{
	uint32_t pos = tok_next(c)->pos;
	bool negated = tok_skip_name(c, "not");
	struct node *n = node_new(c, N_TEST, tok_now(c)->pos);
	const struct token *t;

	n->name = dotted(c);
	n->kid[K0] = of;
	t = tok_now(c);
	if (t->type == T_LPAREN) {
		parse_call_args(c, n);
	} else if ((t->type == T_NAME || t->type == T_STRING || t->type == T_INT || t->type == T_FLOAT ||
		    t->type == T_LBRACKET || t->type == T_LBRACE) &&
		   !tok_is(t, "else") && !tok_is(t, "or") && !tok_is(t, "and")) {
		if (tok_is(t, "is"))
			compile_refuse(c, t->pos, "tests cannot be chained");
		n->kid[K1] = parse_postfix(c, parse_primary(c, false));
		n->nargs = 1;
	}
	grow(c, n);
	return negated ? of_one(c, N_NOT, 0, pos, n) : n;
}

/* --- postfixes --- */

static struct node *parse_subscribed(struct compiler *c)
{
	struct node *n = NULL, *start = NULL;
	uint32_t pos = tok_now(c)->pos;

	if (tok_now(c)->type != T_COLON) {
		start = parse_expression(c, true);
		if (tok_now(c)->type != T_COLON)
			return start;
	}
	tok_next(c);
	n = node_new(c, N_SLICE, pos);
	n->kid[K0] = start;
	for (int i = K1; i <= K2; i++) {
		if (i == K2 && !tok_skip(c, T_COLON))
			break;
		if (tok_now(c)->type != T_COLON && tok_now(c)->type != T_RBRACKET && tok_now(c)->type != T_COMMA)
			n->kid[i] = parse_expression(c, true);
	}
	return grow(c, n);
}

/* Up to the closing bracket: one, or a tuple of none or several. */
static struct node *parse_subscripts(struct compiler *c, uint32_t pos)
{
	struct node *first = NULL, **tail = &first, *tuple;

	while (tok_now(c)->type != T_RBRACKET) {
		if (first)
			tok_expect(c, T_COMMA);
		*tail = parse_subscribed(c);
		tail = &(*tail)->next;
	}
	tok_next(c);
	if (first && !first->next)
		return first;
	for (const struct node *k = first; k; k = k->next)
		if (k->kind == N_SLICE)
			compile_refuse(c, k->pos, "a slice among several subscripts is not supported");
	tuple = node_new(c, N_TUPLE, pos);
	tuple->kid[K0] = first;
	return grow(c, tuple);
}

static struct node *parse_subscript(struct compiler *c, struct node *of)
{
	const struct token *t = tok_next(c), *name = tok_now(c);
	struct node *n = node_new(c, t->type == T_DOT && name->type == T_NAME ? N_ATTR : N_ITEM, t->pos);

	n->kid[K0] = of;
	if (t->type == T_DOT) {
		tok_next(c);
		if (name->type == T_NAME)
			n->name = name->text;
		else if (name->type == T_INT)
			n->kid[K1] = constant(c, name->pos, name->num);
		else
			compile_refuse(c, name->pos, "expected a name or a number");
		return grow(c, n);
	}
	n->kid[K1] = parse_subscripts(c, t->pos);
	return grow(c, n);
}

static struct node *parse_postfix(struct compiler *c, struct node *n)
{
	for (;;) {
		if (tok_now(c)->type == T_DOT || tok_now(c)->type == T_LBRACKET)
			n = parse_subscript(c, n);
		else if (tok_now(c)->type == T_LPAREN)
			n = parse_call(c, n);
		else
			return n;
	}
}

static struct node *parse_filters_and_tests(struct compiler *c, struct node *n)
{
	for (;;) {
		if (tok_now(c)->type == T_PIPE)
			n = parse_filter(c, n, false);
		else if (tok_is(tok_now(c), "is"))
			n = parse_test(c, n);
		else if (tok_now(c)->type == T_LPAREN)
			n = parse_call(c, n);
		else
			return n;
	}
}

/* --- operators --- */

static struct node *parse_unary(struct compiler *c, bool with_filter)
{
	const struct token *t = tok_now(c);
	struct node *n;

	enter(c);
	if (t->type == T_SUB || t->type == T_ADD) {
		tok_next(c);
		n = of_one(c, N_UNARY, t->type == T_SUB ? '-' : '+', t->pos, parse_unary(c, false));
	} else {
		n = parse_primary(c, false);
	}
	c->depth--;
	n = parse_postfix(c, n);
	return with_filter ? parse_filters_and_tests(c, n) : n;
}

static struct node *parse_pow(struct compiler *c)
{
	struct node *n = parse_unary(c, true);
	uint32_t pos;

	while (tok_now(c)->type == T_POW) {
		pos = tok_next(c)->pos;
		n = of_two(c, N_BINARY, 'p', pos, n, parse_unary(c, true));
	}
	return n;
}

static struct node *parse_product(struct compiler *c)
{
	struct node *n = parse_pow(c);

	for (;;) {
		const struct token *t = tok_now(c);
		char op = t->type == T_MUL ? '*' : t->type == T_DIV ? '/' : t->type == T_MOD ? '%' : 'f';

		if (op == 'f' && t->type != T_FLOORDIV)
			return n;
		tok_next(c);
		n = of_two(c, N_BINARY, op, t->pos, n, parse_pow(c));
	}
}

static struct node *parse_concat(struct compiler *c)
{
	struct node *first = parse_product(c), **tail = &first->next, *n;

	if (tok_now(c)->type != T_TILDE)
		return first;
	n = node_new(c, N_CONCAT, tok_now(c)->pos);
	n->kid[K0] = first;
	while (tok_skip(c, T_TILDE)) {
		*tail = parse_product(c);
		tail = &(*tail)->next;
	}
	return grow(c, n);
}

static struct node *parse_sum(struct compiler *c)
{
	struct node *n = parse_concat(c);

	while (tok_now(c)->type == T_ADD || tok_now(c)->type == T_SUB) {
		const struct token *t = tok_next(c);

		n = of_two(c, N_BINARY, t->type == T_ADD ? '+' : '-', t->pos, n, parse_concat(c));
	}
	return n;
}

static char comparison(struct compiler *c)
{
	static const struct {
		uint8_t type;
		char op;
	} ops[] = { { T_EQ, '=' }, { T_NE, '!' }, { T_GT, 'g' }, { T_GE, 'G' }, { T_LT, 'l' }, { T_LE, 'L' } };
	const struct token *t = tok_now(c);

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if (tok_skip(c, ops[i].type))
			return ops[i].op;
	if (tok_skip_name(c, "in"))
		return 'i';
	if (tok_is(t, "not") && tok_is(t + 1, "in")) {
		c->at += 2;
		return 'n';
	}
	return 0;
}

static struct node *parse_compare(struct compiler *c)
{
	struct node *first = parse_sum(c), *n = NULL, **tail = NULL;
	char op;

	for (;;) {
		uint32_t pos = tok_now(c)->pos;

		op = comparison(c);
		if (!op)
			return n ? grow(c, n) : first;
		if (!n) {
			n = node_new(c, N_COMPARE, pos);
			n->kid[K0] = first;
			tail = &n->kid[K1];
		}
		*tail = of_one(c, N_OPERAND, op, pos, parse_sum(c));
		tail = &(*tail)->next;
	}
}

static struct node *parse_not(struct compiler *c)
{
	const struct token *t = tok_now(c);
	struct node *n;

	if (!tok_skip_name(c, "not"))
		return parse_compare(c);
	enter(c);
	n = of_one(c, N_NOT, 0, t->pos, parse_not(c));
	c->depth--;
	return n;
}

static struct node *parse_and(struct compiler *c)
{
	struct node *n = parse_not(c);

	while (tok_is(tok_now(c), "and")) {
		uint32_t pos = tok_next(c)->pos;

		n = of_two(c, N_AND, 0, pos, n, parse_not(c));
	}
	return n;
}

static struct node *parse_or(struct compiler *c)
{
	struct node *n = parse_and(c);

	while (tok_is(tok_now(c), "or")) {
		uint32_t pos = tok_next(c)->pos;

		n = of_two(c, N_OR, 0, pos, n, parse_and(c));
	}
	return n;
}

struct node *parse_expression(struct compiler *c, bool with_cond)
{
	struct node *n, *cond;

	enter(c);
	n = parse_or(c);
	while (with_cond && tok_is(tok_now(c), "if")) {
		cond = node_new(c, N_COND, tok_next(c)->pos);
		cond->kid[K0] = parse_or(c);
		cond->kid[K1] = n;
		if (tok_skip_name(c, "else"))
			cond->kid[K2] = parse_expression(c, true);
		n = grow(c, cond);
	}
	c->depth--;
	return n;
}
