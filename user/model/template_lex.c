/* SPDX-License-Identifier: Apache-2.0
 *
 * Source text to tokens, as jinja2's lexer does it with trim_blocks and lstrip_blocks.
 *
 * The source is normalized first: CR and CRLF become LF, one newline at the end goes. Text up to the next of "{{", "{%"
 * or "{#" is data. What stands before a tag loses its blanks
 *   - all of them, newlines too, if the tag begins with "-";
 *   - those behind the last newline, if there is nothing else behind it, the tag is a block or a comment and does not
 *     begin with "+". "Behind the last newline" includes the beginning of the text, and the place behind a tag that ate
 *     a newline.
 * A tag that ends with "-" eats the blanks behind it; a block or comment that ends with neither sign eats one newline.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/template_int.h"

void *compile_get(struct compiler *c, size_t n)
{
	void *p = template_mem_get(c->mem, n);

	if (!p)
		compile_refuse(c, 0, "the template needs too much memory");
	return memset(p, 0, n);
}

void compile_refuse(struct compiler *c, uint32_t pos, const char *fmt, ...)
{
	const char *s = c->t->source.p;
	va_list ap;

	c->err->line = c->err->col = 1;
	for (uint32_t i = 0; i < pos && i < c->t->source.n; i++) {
		if (s[i] == '\n') {
			c->err->line++;
			c->err->col = 1;
		} else if (((unsigned char)s[i] & 0xc0) != 0x80) {
			c->err->col++;
		}
	}
	va_start(ap, fmt);
	vsnprintf(c->err->text, sizeof(c->err->text), fmt, ap);
	va_end(ap);
	longjmp(*c->fail, 1);
}

static struct token *push(struct compiler *c, enum tok type, uint32_t pos)
{
	if (c->ntok == c->cap) {
		uint32_t cap = c->cap ? c->cap * 2 : 256;
		struct token *t = realloc(c->tok, cap * sizeof(*t));

		if (!t)
			compile_refuse(c, pos, "out of memory");
		c->tok = t;
		c->cap = cap;
	}
	c->tok[c->ntok] = (struct token){ .type = (uint8_t)type, .pos = pos };
	return &c->tok[c->ntok++];
}

/* The length of the white space at <p>, one character; 0: none. */
static unsigned blank_at(const char *p, const char *end)
{
	const char *q = p;

	if (p == end)
		return 0;
	if ((unsigned char)*p < 0x80)
		return uni_flags((unsigned char)*p) & U_SPACE ? 1 : 0;
	return uni_flags(utf8_next(&q)) & U_SPACE ? (unsigned)(q - p) : 0;
}

static const char *skip_blanks(const char *p, const char *end)
{
	unsigned n;

	while ((n = blank_at(p, end)))
		p += n;
	return p;
}

static const char *back_over_blanks(const char *from, const char *p)
{
	while (p > from) {
		const char *q = p - 1;

		while (q > from && ((unsigned char)*q & 0xc0) == 0x80)
			q--;
		if (!blank_at(q, p))
			break;
		p = q;
	}
	return p;
}

struct lexer {
	struct compiler *c;
	const char *start, *p, *end;
	bool line_starting;
	char close[64]; /* brackets that are open */
	unsigned open;
};

static uint32_t at(const struct lexer *l, const char *p)
{
	return (uint32_t)(p - l->start);
}

static void data(struct lexer *l, const char *from, const char *to, char sign, bool lstrip)
{
	if (sign == '-') {
		to = back_over_blanks(from, to);
	} else if (sign != '+' && lstrip) {
		const char *nl = memrchr(from, '\n', (size_t)(to - from)), *line = nl ? nl + 1 : from;

		if ((nl || l->line_starting) && line < to && skip_blanks(line, to) == to)
			to = line;
	}
	if (to > from)
		push(l->c, T_DATA, at(l, from))->text = (struct str){ from, (size_t)(to - from) };
}

/* The end "%}" or "#}" of a block or comment at <p> with what it eats, or NULL. */
static const char *block_end(const struct lexer *l, const char *p, char c)
{
	if (l->end - p >= 3 && (*p == '+' || *p == '-') && p[1] == c && p[2] == '}')
		return *p == '+' ? p + 3 : skip_blanks(p + 3, l->end);
	if (l->end - p < 2 || p[0] != c || p[1] != '}')
		return NULL;
	p += 2;
	return p < l->end && *p == '\n' ? p + 1 : p;
}

static bool word(const char **p, const char *end, const char *w)
{
	size_t n = strlen(w);

	if ((size_t)(end - *p) < n || memcmp(*p, w, n) != 0)
		return false;
	*p += n;
	return true;
}

/* "{%- raw -%}": to behind it, or NULL. */
static const char *raw_begin(const struct lexer *l, const char *p, char *sign)
{
	p += 2;
	*sign = p < l->end && (*p == '-' || *p == '+') ? *p++ : 0;
	p = skip_blanks(p, l->end);
	if (!word(&p, l->end, "raw"))
		return NULL;
	p = skip_blanks(p, l->end);
	if (word(&p, l->end, "-%}"))
		return skip_blanks(p, l->end);
	return word(&p, l->end, "%}") ? p : NULL;
}

static void raw_body(struct lexer *l, uint32_t pos)
{
	for (const char *p = l->p; p + 1 < l->end; p++) {
		const char *q = p + 2;
		char sign;

		if (p[0] != '{' || p[1] != '%')
			continue;
		sign = q < l->end && (*q == '-' || *q == '+') ? *q++ : 0;
		q = skip_blanks(q, l->end);
		if (!word(&q, l->end, "endraw"))
			continue;
		q = block_end(l, skip_blanks(q, l->end), '%');
		if (!q)
			continue;
		data(l, l->p, p, sign, true);
		l->line_starting = q[-1] == '\n';
		l->p = q;
		return;
	}
	compile_refuse(l->c, pos, "raw block without its end");
}

static void comment(struct lexer *l, uint32_t pos)
{
	for (const char *p = l->p; p < l->end; p++) {
		const char *q = *p == '#' || *p == '+' || *p == '-' ? block_end(l, p, '#') : NULL;

		if (!q)
			continue;
		l->line_starting = q[-1] == '\n';
		l->p = q;
		return;
	}
	compile_refuse(l->c, pos, "comment without its end");
}

/* --- inside a tag --- */

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Digits with single underscores between them. */
static const char *digits(const char *p, const char *end)
{
	if (p == end || !is_digit(*p))
		return NULL;
	while (p < end && (is_digit(*p) || (*p == '_' && p + 1 < end && is_digit(p[1]))))
		p++;
	return p;
}

static const char *float_end(const struct lexer *l)
{
	const char *p, *q, *r;

	if (l->p > l->start && l->p[-1] == '.')
		return NULL;
	p = digits(l->p, l->end);
	if (!p)
		return NULL;
	q = p < l->end && *p == '.' ? digits(p + 1, l->end) : NULL;
	r = q ? q : p;
	if (r < l->end && (*r | 0x20) == 'e') {
		r++;
		if (r < l->end && (*r == '+' || *r == '-'))
			r++;
		r = digits(r, l->end);
		if (r)
			return r;
	}
	return q;
}

static void number(struct lexer *l)
{
	const char *p = l->p, *to = float_end(l);
	struct token *t = push(l->c, to ? T_FLOAT : T_INT, at(l, p));
	char text[400];
	size_t n = 0;
	int base = 10;

	if (to) {
		for (const char *q = p; q < to; q++)
			if (*q != '_' && n < sizeof(text) - 1)
				text[n++] = *q;
		text[n] = 0;
		t->num = val_float(strtod(text, NULL));
		if (n == sizeof(text) - 1 || t->num.d > 1.7976931348623157e308)
			compile_refuse(l->c, t->pos, "number too large");
		l->p = to;
		return;
	}
	if (*p == '0' && l->end - p > 2 && strchr("bBoOxX", p[1])) {
		base = (p[1] | 0x20) == 'b' ? 2 : (p[1] | 0x20) == 'o' ? 8 : 16;
		p += 2;
	}
	if (base != 10 && (json_hex(*p) < 0 || json_hex(*p) >= base))
		compile_refuse(l->c, t->pos, "bad number");
	for (int64_t v = 0;; p++) {
		int d = p < l->end && *p == '_' && p > l->p && p + 1 < l->end ? -2 : p == l->end ? -1 : json_hex(*p);

		if (d == -2 && json_hex(p[1]) >= 0 && json_hex(p[1]) < base)
			continue;
		if (d < 0 || d >= base || (*l->p == '0' && base == 10 && d)) {
			t->num = val_int(v);
			break;
		}
		if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v))
			compile_refuse(l->c, t->pos, "number too large");
	}
	l->p = p;
}

static const char *hex_escape(struct lexer *l, const char *p, unsigned n, uint32_t *ret)
{
	*ret = 0;
	for (unsigned i = 0; i < n; i++, p++) {
		int d = json_hex(*p); /* there is a closing quote at the latest */

		if (d < 0)
			compile_refuse(l->c, at(l, p), "bad escape in a string");
		*ret = *ret << 4 | (uint32_t)d;
	}
	if (*ret > 0x10ffff || (*ret >= 0xd800 && *ret < 0xe000))
		compile_refuse(l->c, at(l, p), "escape of what is no character");
	return p;
}

/* What Python's "unicode-escape" makes of the text behind a backslash. */
static const char *escape(struct lexer *l, const char *p, char **to)
{
	static const char from[] = "\\'\"abfnrtv", is[] = "\\'\"\a\b\f\n\r\t\v";
	const char *found = memchr(from, *p, sizeof(from) - 1);
	uint32_t c = 0;

	if (*p == '\n')
		return p + 1;
	if (found) {
		*(*to)++ = is[found - from];
		return p + 1;
	}
	if (*p == 'x' || *p == 'u' || *p == 'U') {
		p = hex_escape(l, p + 1, *p == 'x' ? 2 : *p == 'u' ? 4 : 8, &c);
		*to += utf8_put(*to, c);
		return p;
	}
	if (*p >= '0' && *p <= '7') {
		for (int i = 0; i < 3 && *p >= '0' && *p <= '7'; i++)
			c = c * 8 + (uint32_t)(*p++ - '0');
		*to += utf8_put(*to, c);
		return p;
	}
	if (*p == 'N')
		compile_refuse(l->c, at(l, p), "\\N{…} in a string is not supported");
	*(*to)++ = '\\';
	if ((unsigned char)*p >= 0x80) {
		/* jinja2 has turned it into an escape first, whose backslash is now the escaped one. */
		c = utf8_next(&p);
		*to += sprintf(*to, c < 0x100 ? "x%02x" : c < 0x10000 ? "u%04x" : "U%08x", c);
	}
	return p;
}

static void string(struct lexer *l)
{
	char quote = *l->p, *to, *text;
	const char *p = l->p + 1, *stop;
	struct token *t = push(l->c, T_STRING, at(l, l->p));

	for (stop = p; stop < l->end && *stop != quote; stop++)
		if (*stop == '\\')
			stop++;
	if (stop >= l->end)
		compile_refuse(l->c, t->pos, "string without its end");
	/* At most 9 bytes for three: a backslash and a character of two bytes. */
	text = to = compile_get(l->c, (size_t)(stop - p) * 4 + 16);
	while (p < stop) {
		if (*p != '\\')
			*to++ = *p++;
		else
			p = escape(l, p + 1, &to);
	}
	t->text = (struct str){ text, (size_t)(to - text) };
	l->p = stop + 1;
}

static void operator_(struct lexer *l)
{
	static const struct {
		char text[3];
		uint8_t type;
	} ops[] = {
		{ "//", T_FLOORDIV }, { "**", T_POW },	 { "==", T_EQ },      { "!=", T_NE },	   { ">=", T_GE },
		{ "<=", T_LE },	      { "+", T_ADD },	 { "-", T_SUB },      { "/", T_DIV },	   { "*", T_MUL },
		{ "%", T_MOD },	      { "~", T_TILDE },	 { "[", T_LBRACKET }, { "]", T_RBRACKET }, { "(", T_LPAREN },
		{ ")", T_RPAREN },    { "{", T_LBRACE }, { "}", T_RBRACE },   { ">", T_GT },	   { "<", T_LT },
		{ "=", T_ASSIGN },    { ".", T_DOT },	 { ":", T_COLON },    { "|", T_PIPE },	   { ",", T_COMMA },
		{ ";", T_SEMICOLON },
	};
	char c = *l->p;

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		size_t n = strlen(ops[i].text);

		if ((size_t)(l->end - l->p) < n || memcmp(l->p, ops[i].text, n) != 0)
			continue;
		if (c == '(' || c == '[' || c == '{') {
			if (l->open == sizeof(l->close))
				compile_refuse(l->c, at(l, l->p), "brackets too deep");
			l->close[l->open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
		} else if (c == ')' || c == ']' || c == '}') {
			if (!l->open || l->close[l->open - 1] != c)
				compile_refuse(l->c, at(l, l->p), "unexpected \"%c\"", c);
			l->open--;
		}
		push(l->c, ops[i].type, at(l, l->p));
		l->p += n;
		return;
	}
	compile_refuse(l->c, at(l, l->p), "unexpected character");
}

static bool name_char(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static void tag(struct lexer *l, bool block, uint32_t pos)
{
	for (;;) {
		const char *to = NULL, *p = l->p;

		if (p == l->end)
			compile_refuse(l->c, pos, "tag without its end");
		if (!l->open && block)
			to = block_end(l, p, '%');
		else if (!l->open)
			to = word(&p, l->end, "-}}") ? skip_blanks(p, l->end) : word(&p, l->end, "}}") ? p : NULL;
		if (to) {
			push(l->c, block ? T_BLOCK_END : T_VAR_END, at(l, l->p));
			l->line_starting = to[-1] == '\n';
			l->p = to;
			return;
		}
		if (blank_at(l->p, l->end)) {
			l->p = skip_blanks(l->p, l->end);
		} else if (is_digit(*l->p)) {
			number(l);
		} else if (name_char(*l->p)) {
			while (p < l->end && name_char(*p))
				p++;
			if (p < l->end && (unsigned char)*p >= 0x80)
				compile_refuse(l->c, at(l, p), "names outside of ASCII are not supported");
			push(l->c, T_NAME, at(l, l->p))->text = (struct str){ l->p, (size_t)(p - l->p) };
			l->p = p;
		} else if (*l->p == '"' || *l->p == '\'') {
			string(l);
		} else {
			operator_(l);
		}
	}
}

static const char *next_tag(const char *p, const char *end)
{
	while ((p = memchr(p, '{', (size_t)(end - p)))) {
		if (p + 1 < end && (p[1] == '{' || p[1] == '%' || p[1] == '#'))
			return p;
		p++;
	}
	return NULL;
}

static void normalize(struct compiler *c)
{
	struct str s = c->t->source;
	char *to = compile_get(c, s.n + 1), *start = to;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '\r') {
			*to++ = '\n';
			i += i + 1 < s.n && s.p[i + 1] == '\n';
		} else {
			*to++ = s.p[i];
		}
	}
	if (to > start && to[-1] == '\n')
		to--;
	*to = 0;
	c->t->source = (struct str){ start, (size_t)(to - start) };
}

void template_lex(struct compiler *c)
{
	struct lexer l = { .c = c, .line_starting = true };
	const char *p;

	normalize(c);
	l.p = l.start = c->t->source.p;
	l.end = l.p + c->t->source.n;
	while ((p = next_tag(l.p, l.end))) {
		bool var = p[1] == '{', block = p[1] == '%';
		char sign = 0;
		const char *raw = block ? raw_begin(&l, p, &sign) : NULL, *text = l.p;

		l.p = p + 2;
		if (!raw)
			sign = l.p < l.end && (*l.p == '-' || *l.p == '+') ? *l.p++ : 0;
		data(&l, text, p, sign, !var);
		if (raw) {
			l.line_starting = raw[-1] == '\n';
			l.p = raw;
			raw_body(&l, at(&l, p));
		} else if (var || block) {
			push(c, var ? T_VAR : T_BLOCK, at(&l, p));
			tag(&l, block, at(&l, p));
		} else {
			comment(&l, at(&l, p));
		}
	}
	if (l.p < l.end)
		push(c, T_DATA, at(&l, l.p))->text = (struct str){ l.p, (size_t)(l.end - l.p) };
	push(c, T_EOF, c->t->source.n ? (uint32_t)c->t->source.n - 1 : 0);
}
