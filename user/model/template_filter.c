/* SPDX-License-Identifier: Apache-2.0
 *
 * Filters of one value. Those of sequences are in template_filter_seq.c.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/template_filter.h"

bool arg_true(struct run *r, struct val v, bool missing)
{
	return v.t == V_MISSING ? missing : val_truth(r, v);
}

int64_t arg_int(struct run *r, struct val v, int64_t missing)
{
	if (v.t == V_MISSING)
		return missing;
	if (v.t == V_UNDEF)
		undef_used(r, v);
	if (!is_int(v))
		run_raise(r, "an integer is wanted, not a %s", val_type_name(v));
	return v.i;
}

/* --- text --- */

FILTER(f_upper)
{
	return text_case(r, val_soft_str(r, v), 'u');
}

FILTER(f_lower)
{
	return text_case(r, val_soft_str(r, v), 'l');
}

FILTER(f_capitalize)
{
	return text_case(r, val_soft_str(r, v), 'c');
}

/* Words begin behind blanks and ( { [ < -, and only there. */
FILTER(f_title)
{
	struct val s = val_soft_str(r, v);
	const char *p = s.s, *end = p + s.n;
	struct out o;

	out_capture(r, &o);
	while (p < end) {
		const char *from = p;
		struct val piece;
		bool gap = false;

		for (bool first = true; p < end; first = false) {
			const char *q = p;
			uint32_t c = utf8_next(&q);
			bool is = (c < 0x80 && c && strchr("-({[<", (int)c)) || uni_flags(c) & U_SPACE;

			if (first)
				gap = is;
			else if (is != gap)
				break;
			p = q;
			if (first && !gap) {
				piece = text_case(r, val_strn(from, (size_t)(p - from)), 'u');
				out_put(r, piece.s, piece.n);
				from = p;
			}
		}
		piece = val_strn(from, (size_t)(p - from));
		if (!gap)
			piece = text_case(r, piece, 'l');
		out_put(r, piece.s, piece.n);
	}
	return out_end(r, &o);
}

FILTER(f_trim)
{
	struct val s = val_soft_str(r, v);

	return text_strip(r, s, arg[0].t == V_MISSING ? NULL : &arg[0], 3);
}

FILTER(f_string)
{
	return val_soft_str(r, v);
}

FILTER(f_safe)
{
	v = val_to_str(r, v);
	v.f |= F_MARKUP;
	return v;
}

FILTER(f_escape)
{
	return val_escape(r, v);
}

FILTER(f_forceescape)
{
	return val_escape(r, val_to_str(r, v));
}

FILTER(f_replace)
{
	int64_t count = -1;

	if (arg[2].t != V_MISSING && arg[2].t != V_NONE)
		count = arg_int(r, arg[2], -1);
	return text_replace(r, val_to_str(r, v), val_to_str(r, arg[0]), val_to_str(r, arg[1]), count);
}

FILTER(f_center)
{
	return text_pad(r, val_soft_str(r, v), arg_int(r, arg[0], 80), val_lit(" "), 'c');
}

FILTER(f_indent)
{
	struct val by, lines, first;
	struct out o;

	if (v.t == V_UNDEF)
		undef_used(r, v);
	if (v.t != V_STR)
		run_raise(r, "indent wants a string, not a %s", val_type_name(v));
	by = arg[0].t == V_STR ? arg[0] : text_repeat(r, val_lit(" "), arg_int(r, arg[0], 4));
	if (v.f & F_MARKUP)
		by = val_escape(r, (by.f |= F_MARKUP, by));
	lines = text_lines(r, text_concat(r, v, val_lit("\n")), false);
	out_capture(r, &o);
	for (uint32_t i = 0; i < lines.n; i++) {
		struct val line = lines.at[i];

		if (i)
			out_put(r, "\n", 1);
		if (i && (line.n || arg_true(r, arg[2], false)))
			out_put(r, by.s, by.n);
		out_put(r, line.s, line.n);
	}
	first = out_end(r, &o);
	first.f = v.f & F_MARKUP;
	return arg_true(r, arg[1], false) ? text_concat(r, by, first) : first;
}

FILTER(f_truncate)
{
	int64_t n = arg_int(r, arg[0], 255), leeway = arg[3].t == V_NONE ? 5 : arg_int(r, arg[3], 5), e;
	struct val end = arg[2].t == V_MISSING ? val_lit("...") : arg[2], s, words, sep = val_lit(" ");

	e = val_len(r, end);
	if (n < e || leeway < 0)
		run_raise(r, "truncate: bad length");
	if (val_len(r, v) <= n + leeway)
		return v;
	if (v.t != V_STR || end.t != V_STR || (v.f | end.f) & F_MARKUP)
		run_unsure(r, "truncate of what is no plain string");
	s = val_strn(v.s, text_offset(r, v, n - e));
	if (!arg_true(r, arg[1], false)) {
		words = text_split(r, s, &sep, 1, true);
		s = words.at[0];
	}
	return text_concat(r, s, end);
}

FILTER(f_wordcount)
{
	struct val s = val_soft_str(r, v);
	const char *p = s.s, *end = p + s.n;
	bool in = false;
	int64_t n = 0;

	run_step_bytes(r, (size_t)s.n * 4);
	while (p < end) {
		uint32_t c = utf8_next(&p);
		bool word = c == '_' || uni_flags(c) & (U_ALPHA | U_NUMERIC | U_DECIMAL | U_DIGIT);

		n += word && !in;
		in = word;
	}
	return val_int(n);
}

FILTER(f_urlencode)
{
	static const char plain[] = "_.-~/";
	struct out o;

	if (v.t == V_UNDEF || (v.t != V_STR && val_iterable(v)))
		run_unsure(r, "urlencode of what is no string");
	v = val_to_str(r, v);
	out_capture(r, &o);
	for (uint32_t i = 0; i < v.n; i++) {
		unsigned char c = (unsigned char)v.s[i];
		char hex[4];

		if ((c < 0x80 && uni_flags(c) & (U_ALPHA | U_DECIMAL)) || (c && strchr(plain, c)))
			out_put(r, v.s + i, 1);
		else
			out_put(r, hex, (size_t)sprintf(hex, "%%%02X", c));
	}
	return out_end(r, &o);
}

FILTER(f_format)
{
	struct val t;

	if (a->n && a->nkw)
		run_raise(r, "format: positional and keyword arguments at the same time");
	if (a->nkw)
		return text_percent(r, val_soft_str(r, v), args_kwargs(r, a));
	t = val_list(r, V_TUPLE, a->n);
	if (a->n)
		memcpy(t.at, a->at, a->n * sizeof(t));
	return text_percent(r, val_soft_str(r, v), t);
}

static void json_style(struct run *r, struct val *arg, struct json_style *ret)
{
	struct json_style s = { .item_sep = STR(", "), .key_sep = STR(": ") };

	s.ascii = arg_true(r, arg[0], false);
	s.sort = arg_true(r, arg[3], false);
	if (arg[1].t != V_MISSING && arg[1].t != V_NONE) {
		s.pretty = true;
		s.item_sep = STR(",");
		if (arg[1].t == V_STR)
			s.indent = val_str(arg[1]);
		else
			s.indent = val_str(text_repeat(r, val_lit(" "), arg_int(r, arg[1], 0)));
	}
	if (arg[2].t != V_MISSING && arg[2].t != V_NONE) {
		struct val two = val_to_list(r, arg[2], V_TUPLE);

		if (two.n != 2 || two.at[0].t != V_STR || two.at[1].t != V_STR)
			run_raise(r, "tojson: separators must be two strings");
		s.item_sep = val_str(two.at[0]);
		s.key_sep = val_str(two.at[1]);
	}
	*ret = s;
}

FILTER(f_tojson)
{
	struct json_style s;
	struct out o;

	json_style(r, arg, &s);
	out_capture(r, &o);
	val_print_json(r, v, &s);
	return out_end(r, &o);
}

/* --- numbers --- */

FILTER(f_abs)
{
	if (v.t == V_UNDEF)
		undef_used(r, v);
	if (v.t == V_FLOAT)
		return val_float(fabs(v.d));
	if (!is_int(v) && v.t != V_BIG)
		run_raise(r, "abs of a %s", val_type_name(v));
	return is_int(v) && v.i >= 0 ? val_int(v.i) : val_unary(r, '-', v);
}

static struct val int_of_double(struct run *r, double d, struct val otherwise)
{
	if (isnan(d) || isinf(d))
		return otherwise;
	if (fabs(d) >= 9.2e18)
		run_unsure(r, "an integer beyond 64 bits");
	return val_int((int64_t)d);
}

FILTER(f_int)
{
	struct val otherwise = arg[0].t == V_MISSING ? val_int(0) : arg[0], n;
	int64_t base = arg_int(r, arg[1], 10);
	double d;
	bool ok;

	switch (v.t) {
	case V_UNDEF:
		undef_used(r, v);
	case V_BOOL:
	case V_INT:
		return val_int(v.i);
	case V_BIG:
		return v;
	case V_FLOAT:
		if (isinf(v.d))
			run_raise(r, "int of infinity");
		return int_of_double(r, v.d, otherwise);
	case V_STR:
		if (base < 2 || base > 36)
			run_unsure(r, "int with base %lld", (long long)base);
		n = number_parse(r, val_str(v), (int)base, &ok);
		if (ok)
			return n;
		return number_parse_float(val_str(v), &d) ? int_of_double(r, d, otherwise) : otherwise;
	default:
		return otherwise;
	}
}

FILTER(f_float)
{
	struct val otherwise = arg[0].t == V_MISSING ? val_float(0) : arg[0];
	double d;

	switch (v.t) {
	case V_UNDEF:
		undef_used(r, v);
	case V_BOOL:
	case V_INT:
	case V_BIG:
	case V_FLOAT:
		return val_float(val_double(r, v));
	case V_STR:
		for (uint32_t i = 0; i < v.n; i++)
			if ((unsigned char)v.s[i] >= 0x80)
				run_unsure(r, "a number in characters outside of ASCII");
		return number_parse_float(val_str(v), &d) ? val_float(d) : otherwise;
	default:
		return otherwise;
	}
}

FILTER(f_round)
{
	int64_t places = arg_int(r, arg[0], 0);
	double d, scale;
	char text[400];
	bool up;

	if (v.t == V_UNDEF)
		undef_used(r, v);
	if (arg[1].t != V_MISSING && !val_is(arg[1], STR("common"))) {
		up = val_is(arg[1], STR("ceil"));
		if (!up && !val_is(arg[1], STR("floor")))
			run_raise(r, "round: method must be common, ceil or floor");
		if (places < 0 || places > 15 || v.t == V_STR)
			run_unsure(r, "round to %lld places", (long long)places);
		scale = pow(10, (double)places);
		d = val_double(r, v) * scale;
		if (fabs(d) >= 4503599627370496.0)
			run_unsure(r, "round of a large number");
		return val_float((up ? ceil(d) : floor(d)) / scale);
	}
	if (is_int(v) && places >= 0)
		return val_int(v.i);
	if (v.t != V_FLOAT)
		run_raise(r, "round of a %s", val_type_name(v));
	if (places < 0 || places > 20)
		run_unsure(r, "round to %lld places", (long long)places);
	if (!isfinite(v.d))
		return v;
	snprintf(text, sizeof(text), "%.*f", (int)places, v.d);
	return val_float(strtod(text, NULL));
}

FILTER(f_filesizeformat)
{
	static const char *const units[2][8] = { { "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB" },
						 { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB" } };
	bool binary = arg_true(r, arg[0], false);
	double base = binary ? 1024 : 1000, bytes, unit;
	char text[64], *p;
	int i = 0;

	if (v.t != V_FLOAT && !is_int(v))
		run_unsure(r, "filesizeformat of a %s", val_type_name(v));
	bytes = val_double(r, v);
	if (bytes == 1)
		return val_lit("1 Byte");
	if (fabs(bytes) > 1e15)
		run_unsure(r, "filesizeformat of a large number");
	if (bytes < base) {
		snprintf(text, sizeof(text), "%lld Bytes", (long long)bytes);
	} else {
		for (unit = base * base; bytes >= unit && i < 7; i++)
			unit *= base;
		snprintf(text, sizeof(text), "%.1f %s", base * bytes / unit, units[binary][i]);
	}
	p = run_bytes(r, strlen(text));
	memcpy(p, text, strlen(text));
	return val_strn(p, strlen(text));
}

/* --- any value --- */

FILTER(f_default)
{
	if (v.t == V_UNDEF || (arg_true(r, arg[1], false) && !val_truth(r, v)))
		return arg[0].t == V_MISSING ? val_lit("") : arg[0];
	return v;
}

FILTER(f_attr)
{
	struct val x;

	if (arg[0].t != V_STR)
		run_raise(r, "attr wants a name, not a %s", val_type_name(arg[0]));
	if (v.t == V_UNDEF)
		run_unsure(r, "attr of what is undefined");
	if (v.t == V_DICT && !template_method_of(template_method_find(val_str(arg[0])), V_DICT))
		return undef_attr(val_str(arg[0]));
	x = val_attr(r, v, val_str(arg[0]), template_method_find(val_str(arg[0])));
	return x;
}

#define NO_FILTER NULL

static const struct filter table[] = {
	{ "abs", { NULL, 0, 0 }, f_abs },
	{ "attr", { "name", 1, 1 }, f_attr },
	{ "capitalize", { NULL, 0, 0 }, f_capitalize },
	{ "center", { "width", 0, 1 }, f_center },
	{ "d", { "default_value,boolean", 0, 2 }, f_default },
	{ "default", { "default_value,boolean", 0, 2 }, f_default },
	{ "e", { NULL, 0, 0 }, f_escape },
	{ "escape", { NULL, 0, 0 }, f_escape },
	{ "filesizeformat", { "binary", 0, 1 }, f_filesizeformat },
	{ "float", { "default", 0, 1 }, f_float },
	{ "forceescape", { NULL, 0, 0 }, f_forceescape },
	{ "format", { NULL, 0, ANY_ARGS }, f_format },
	{ "indent", { "width,first,blank", 0, 3 }, f_indent },
	{ "int", { "default,base", 0, 2 }, f_int },
	{ "lower", { NULL, 0, 0 }, f_lower },
	{ "replace", { "old,new,count", 2, 3 }, f_replace },
	{ "round", { "precision,method", 0, 2 }, f_round },
	{ "safe", { NULL, 0, 0 }, f_safe },
	{ "string", { NULL, 0, 0 }, f_string },
	{ "title", { NULL, 0, 0 }, f_title },
	{ "tojson", { "ensure_ascii,indent,separators,sort_keys", 0, 4 }, f_tojson },
	{ "trim", { "chars", 0, 1 }, f_trim },
	{ "truncate", { "length,killwords,end,leeway", 0, 4 }, f_truncate },
	{ "upper", { NULL, 0, 0 }, f_upper },
	{ "urlencode", { NULL, 0, 0 }, f_urlencode },
	{ "wordcount", { NULL, 0, 0 }, f_wordcount },
	/* There are such filters, but not here. */
	{ "pprint", { NULL, 0, 0 }, NO_FILTER },
	{ "random", { NULL, 0, 0 }, NO_FILTER },
	{ "striptags", { NULL, 0, 0 }, NO_FILTER },
	{ "urlize", { NULL, 0, 0 }, NO_FILTER },
	{ "wordwrap", { NULL, 0, 0 }, NO_FILTER },
	{ "xmlattr", { NULL, 0, 0 }, NO_FILTER },
};

bool template_filter_print(struct run *r, const struct filter *f, struct val v, const struct args *a)
{
	struct val slot[ARGS_MAX];
	struct json_style s;

	if (f->run != f_tojson)
		return false;
	args_bind(r, f->name, &f->p, a, slot);
	json_style(r, slot, &s);
	val_print_json(r, v, &s);
	return true;
}

const struct filter *template_filter_find(struct str name)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (str_eq(name, str_of(table[i].name)))
			return &table[i];
	return template_filter_find_seq(name);
}
