/* SPDX-License-Identifier: Apache-2.0
 *
 * "%s" % x and "{}".format(x): the conversions that templates are seen to use; others are not guessed.
 */
#include <stdio.h>

#include "model/template_int.h"

struct spec {
	bool left, zero, plus, space, alt, comma;
	int64_t width, places; /* places -1: none */
	char fill[4], align, type;
	unsigned nfill;
};

static void pad(struct run *r, const struct spec *s, struct val text, bool number)
{
	int64_t gap = s->width - (s->width > 0 ? text_len(r, text) : 0), left = 0;
	bool sign = number && text.n && strchr("+- ", text.s[0]);

	if (gap < 0)
		gap = 0;
	if (gap > 100000)
		run_fail(r, TEMPLATE_LIMIT, "a field is too wide");
	if (s->align == '>' || s->align == '=')
		left = gap;
	else if (s->align == '^')
		left = gap / 2;
	if (s->align == '=' && sign) {
		out_put(r, text.s, 1);
		text.s++;
		text.n--;
	}
	for (int64_t i = 0; i < left; i++)
		out_put(r, s->fill, s->nfill);
	out_put(r, text.s, text.n);
	for (int64_t i = left; i < gap; i++)
		out_put(r, s->fill, s->nfill);
}

static struct val with_commas(struct run *r, const char *text)
{
	size_t n = strlen(text), sign = text[0] == '-' || text[0] == '+' || text[0] == ' ', digits = sign;
	char *p = run_bytes(r, n * 2 + 1), *to = p;

	while (text[digits] >= '0' && text[digits] <= '9')
		digits++;
	for (size_t i = 0; i < n; i++) {
		if (i > sign && i < digits && (digits - i) % 3 == 0)
			*to++ = ',';
		*to++ = text[i];
	}
	return val_strn(p, (size_t)(to - p));
}

static void put_int(struct run *r, struct spec *s, struct val v)
{
	char text[100], form[16];
	uint64_t u;
	size_t sign;

	if (!is_int(v))
		run_unsure(r, "a %s formatted as a number", val_type_name(v));
	if (s->places > 60)
		run_unsure(r, "a number with very many digits");
	u = v.i < 0 ? 0 - (uint64_t)v.i : (uint64_t)v.i;
	sign = v.i < 0 || s->plus || s->space;
	text[0] = v.i < 0 ? '-' : s->plus ? '+' : ' ';
	snprintf(form, sizeof(form), "%%%s.*ll%c", s->alt ? "#" : "", s->type == 'd' ? 'u' : s->type);
	snprintf(text + sign, sizeof(text) - sign, form, (int)(s->places < 0 ? 1 : s->places), (unsigned long long)u);
	if (u == 0 && s->places == 0)
		run_unsure(r, "zero with no digits");
	if (s->alt && s->type != 'd')
		run_unsure(r, "the # flag");
	pad(r, s, s->comma ? with_commas(r, text) : val_strn(text, strlen(text)), true);
}

static void put_float(struct run *r, struct spec *s, struct val v)
{
	char text[400], form[16];
	double d;

	if (v.t != V_FLOAT && !is_int(v))
		run_unsure(r, "a %s formatted as a number", val_type_name(v));
	d = val_double(r, v);
	if (s->places > 30 || d > 1e60 || d < -1e60 || d != d || s->alt)
		run_unsure(r, "a number of this size as text");
	snprintf(form, sizeof(form), "%%%s.*%c", s->plus ? "+" : s->space ? " " : "", s->type);
	snprintf(text, sizeof(text), form, (int)(s->places < 0 ? 6 : s->places), d);
	pad(r, s, s->comma ? with_commas(r, text) : val_strn(text, strlen(text)), true);
}

static void put_text(struct run *r, struct spec *s, struct val v)
{
	if (s->places >= 0)
		v = val_strn(v.s, text_offset(r, v, s->places));
	pad(r, s, v, false);
}

static int64_t number(const char **p, const char *end)
{
	int64_t n = 0;

	for (; *p < end && **p >= '0' && **p <= '9'; ++*p)
		if (n < 100000000)
			n = n * 10 + (**p - '0');
	return n;
}

/* --- % --- */

struct percent {
	struct val args;
	uint32_t next;
	bool tuple, used;
};

static struct val next_arg(struct run *r, struct percent *x)
{
	if (x->tuple) {
		if (x->next >= x->args.n)
			run_raise(r, "not enough arguments for format string");
		return val_force(r, &x->args.at[x->next++]);
	}
	if (x->used)
		run_raise(r, "not enough arguments for format string");
	x->used = true;
	return x->args;
}

static void conversion(struct run *r, struct percent *x, const char **pp, const char *end, bool markup)
{
	struct spec s = { .places = -1, .align = '>', .fill = " ", .nfill = 1 };
	const char *p = *pp;
	struct val v = val_of(V_MISSING), *found;

	if (p < end && *p == '(') {
		const char *close = memchr(p, ')', (size_t)(end - p));

		if (!close || memchr(p + 1, '(', (size_t)(close - p - 1)))
			run_unsure(r, "a format with a key in brackets");
		if (x->args.t != V_DICT)
			run_raise(r, "format requires a mapping");
		found = dict_find_str(r, x->args.dict, (struct str){ p + 1, (size_t)(close - p - 1) });
		if (!found)
			run_raise(r, "no such key in the format's mapping");
		v = val_force(r, found);
		p = close + 1;
	}
	for (; p < end && strchr("-+ #0", *p); p++) {
		s.left |= *p == '-';
		s.plus |= *p == '+';
		s.space |= *p == ' ';
		s.alt |= *p == '#';
		s.zero |= *p == '0';
	}
	s.width = number(&p, end);
	if (p < end && *p == '.') {
		p++;
		s.places = number(&p, end);
	}
	while (p < end && strchr("hlL", *p))
		p++;
	if (p == end)
		run_raise(r, "incomplete format");
	s.type = *p++;
	*pp = p;
	if (s.type == '%') {
		if (s.width || s.places >= 0 || s.left || s.zero)
			run_unsure(r, "%%%% with a width");
		return out_put(r, "%", 1);
	}
	if (v.t == V_MISSING)
		v = next_arg(r, x);
	if (s.left)
		s.align = '<';
	switch (s.type) {
	case 's':
	case 'r':
		if (markup)
			v = val_escape(r, s.type == 'r' ? val_repr(r, v) : v);
		return put_text(r, &s, s.type == 's' || markup ? val_to_str(r, v) : val_repr(r, v));
	case 'd':
	case 'i':
	case 'u':
		if (v.t == V_FLOAT && v.d > -9e18 && v.d < 9e18)
			v = val_int((int64_t)v.d);
		s.type = 'd';
		if (s.zero && !s.left)
			s.align = '=', s.fill[0] = '0';
		return put_int(r, &s, v);
	case 'x':
	case 'X':
	case 'o':
		if (s.zero && !s.left)
			s.align = '=', s.fill[0] = '0';
		return put_int(r, &s, v);
	case 'f':
	case 'F':
	case 'e':
	case 'E':
	case 'g':
	case 'G':
		if (s.zero && !s.left)
			s.align = '=', s.fill[0] = '0';
		return put_float(r, &s, v);
	default:
		run_unsure(r, "%%%c in a format is not supported", s.type);
	}
}

struct val text_percent(struct run *r, struct val format, struct val args)
{
	struct percent x = { .args = args, .tuple = args.t == V_TUPLE };
	const char *p = format.s, *end = p + format.n;
	uint8_t f = format.f & F_MARKUP;
	struct out o;

	out_capture(r, &o);
	while (p < end) {
		const char *q = memchr(p, '%', (size_t)(end - p));

		out_put(r, p, (size_t)((q ? q : end) - p));
		if (!q)
			break;
		p = q + 1;
		run_step(r, 4);
		conversion(r, &x, &p, end, f);
	}
	/* What has items is taken for a mapping, which may be left over. */
	if (x.tuple ? x.next < x.args.n
		    : !x.used && args.t != V_DICT && args.t != V_LIST && args.t != V_RANGE && args.t != V_UNDEF)
		run_raise(r, "not all arguments converted during string formatting");
	format = out_end(r, &o);
	format.f = f;
	return format;
}

/* --- str.format --- */

static void parse_spec(struct run *r, struct spec *s, struct str t)
{
	const char *p = t.p, *end = p + t.n, *q = p;

	*s = (struct spec){ .places = -1, .fill = " ", .nfill = 1 };
	if (p == end)
		return;
	utf8_next(&q);
	if (q < end && strchr("<>^=", *q)) {
		s->nfill = (unsigned)(q - p);
		memcpy(s->fill, p, s->nfill);
		s->align = *q;
		p = q + 1;
	} else if (strchr("<>^=", *p)) {
		s->align = *p++;
	}
	if (p < end && strchr("+- ", *p)) {
		s->plus = *p == '+';
		s->space = *p++ == ' ';
	}
	if (p < end && *p == '0') {
		s->zero = true;
		p++;
	}
	s->width = number(&p, end);
	if (p < end && *p == ',') {
		s->comma = true;
		p++;
	}
	if (p < end && *p == '.') {
		p++;
		if (p == end || *p < '0' || *p > '9')
			run_raise(r, "format specifier missing precision");
		s->places = number(&p, end);
	}
	if (p < end)
		s->type = *p++;
	if (p != end || (s->type && !strchr("sdxXofFeE", s->type)))
		run_unsure(r, "the format \"%.*s\" is not supported", (int)t.n, t.p);
}

static void put_field(struct run *r, struct val v, struct str spec)
{
	bool number = v.t == V_INT || v.t == V_FLOAT;
	struct spec s;

	parse_spec(r, &s, spec);
	if (spec.n == 0)
		return val_print(r, v);
	if (v.t == V_STR) {
		if ((s.type && s.type != 's') || s.align == '=' || s.plus || s.space || s.comma || s.zero)
			run_unsure(r, "a string formatted as \"%.*s\"", (int)spec.n, spec.p);
		if (!s.align)
			s.align = '<';
		return put_text(r, &s, v);
	}
	if (!number)
		run_unsure(r, "a %s formatted as \"%.*s\"", val_type_name(v), (int)spec.n, spec.p);
	if (s.zero && !s.align) {
		s.align = '=';
		s.fill[0] = '0';
	}
	if (s.zero && s.comma && s.width)
		run_unsure(r, "zeros and commas");
	if (!s.align)
		s.align = '>';
	if (s.type && strchr("fFeE", s.type))
		return put_float(r, &s, v);
	if (s.type == 's' || s.places >= 0 || v.t == V_FLOAT)
		run_unsure(r, "a number formatted as \"%.*s\"", (int)spec.n, spec.p);
	if (!s.type)
		s.type = 'd';
	put_int(r, &s, v);
}

static struct val field(struct run *r, struct str name, const struct args *a, uint32_t *next, bool *manual)
{
	const char *p = name.p, *end = p + name.n, *q = p;
	struct str first;
	struct val v;
	uint64_t i;

	while (q < end && *q != '.' && *q != '[')
		q++;
	first = (struct str){ p, (size_t)(q - p) };
	if (first.n == 0 || (first.p[0] >= '0' && first.p[0] <= '9')) {
		if (*manual == (first.n == 0) && (*next || *manual))
			run_raise(r, "cannot mix automatic and manual field numbering");
		if (first.n && (str_u64(first, &i) || i >= a->n))
			run_raise(r, "no such positional argument");
		*manual |= first.n > 0;
		if (first.n == 0)
			i = (*next)++;
		if (i >= a->n)
			run_raise(r, "no such positional argument");
		v = a->at[i];
	} else {
		struct val kw = args_kwargs(r, a), *found = dict_find_str(r, kw.dict, first);

		if (!found)
			run_raise(r, "no argument \"%.*s\"", (int)first.n, first.p);
		v = *found;
	}
	while (q < end) {
		const char *from = ++q;
		bool is_attr = q[-1] == '.';

		while (q < end && (is_attr ? *q != '.' && *q != '[' : *q != ']'))
			q++;
		if (q == from || (!is_attr && q == end))
			run_raise(r, "bad field name");
		first = (struct str){ from, (size_t)(q - from) };
		if (is_attr)
			v = val_attr(r, v, first, template_method_find(first));
		else
			v = val_item(r, v, str_u64(first, &i) == 0 ? val_int((int64_t)i) : val_strn(first.p, first.n));
		q += !is_attr;
		if (!is_attr && q < end && *q != '.' && *q != '[')
			run_raise(r, "bad field name");
	}
	return v;
}

struct val text_format(struct run *r, struct val format, const struct args *a)
{
	const char *p = format.s, *end = p + format.n;
	bool manual = false;
	uint32_t next = 0;
	struct out o;

	if (format.f & F_MARKUP)
		run_unsure(r, "format of safe text");
	out_capture(r, &o);
	while (p < end) {
		const char *q = p, *close, *colon, *bang;
		struct str name, spec = { "", 0 };
		struct val v;

		while (q < end && *q != '{' && *q != '}')
			q++;
		out_put(r, p, (size_t)(q - p));
		if (q == end)
			break;
		if (q + 1 < end && q[1] == *q) {
			out_put(r, q, 1);
			p = q + 2;
			continue;
		}
		close = *q == '{' ? memchr(q, '}', (size_t)(end - q)) : NULL;
		if (!close)
			run_raise(r, "single brace in a format");
		if (memchr(q + 1, '{', (size_t)(close - q - 1)))
			run_unsure(r, "a field in a field of a format");
		name = (struct str){ q + 1, (size_t)(close - q - 1) };
		colon = memchr(name.p, ':', name.n);
		if (colon) {
			spec = (struct str){ colon + 1, (size_t)(close - colon - 1) };
			name.n = (size_t)(colon - name.p);
		}
		bang = memchr(name.p, '!', name.n);
		if (bang)
			name.n = (size_t)(bang - name.p);
		run_step(r, 8);
		v = field(r, name, a, &next, &manual);
		if (bang) {
			char c = bang + 2 == (colon ? colon : close) ? bang[1] : 0;

			if (c != 's' && c != 'r')
				run_unsure(r, "a conversion in a format");
			v = c == 's' ? val_to_str(r, v) : val_repr(r, v);
		}
		put_field(r, v, spec);
		p = close + 1;
	}
	return out_end(r, &o);
}
