/* SPDX-License-Identifier: Apache-2.0
 * Text to values and back: numbers, durations, sizes, words.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "config/config_int.h"

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit duration_units[] = {
	{ "h", UINT64_C(3600000000000) },
	{ "m", UINT64_C(60000000000) },
	{ "s", UINT64_C(1000000000) },
	{ "ms", 1000000 },
	{ "us", 1000 },
	{ "ns", 1 },
	{ NULL, 0 },
};

/* Largest first: writing takes the first that divides. "G" alone is refused, as it means two things. */
static const struct unit size_units[] = {
	{ "TiB", UINT64_C(1) << 40 },
	{ "GiB", 1u << 30 },
	{ "MiB", 1u << 20 },
	{ "KiB", 1u << 10 },
	{ "B", 1 },
	{ "Ti", UINT64_C(1) << 40 },
	{ "Gi", 1u << 30 },
	{ "Mi", 1u << 20 },
	{ "Ki", 1u << 10 },
	{ "TB", UINT64_C(1000000000000) },
	{ "GB", 1000000000 },
	{ "MB", 1000000 },
	{ "KB", 1000 },
	{ "kB", 1000 },
	{ NULL, 0 },
};

/* One "NUMBER[.FRACTION]UNIT" from the front of <s>. */
static int quantity(struct str *s, const struct unit *units, uint64_t *ret)
{
	uint64_t whole = 0, frac = 0, scale = 1, part, v;
	size_t i = 0, j;
	int r;

	while (i < s->n && isdigit((unsigned char)s->p[i]))
		i++;
	r = str_u64((struct str){ s->p, i }, &whole);
	if (r)
		return r;
	if (i < s->n && s->p[i] == '.') {
		for (j = ++i; i < s->n && isdigit((unsigned char)s->p[i]); i++) {
			if (i - j >= 9)
				return -EINVAL;
			frac = frac * 10 + (uint64_t)(s->p[i] - '0');
			scale *= 10;
		}
		if (i == j)
			return -EINVAL;
	}
	for (j = i; j < s->n && isalpha((unsigned char)s->p[j]); j++)
		;
	for (; units->name; units++)
		if (str_eq(str_of(units->name), (struct str){ s->p + i, j - i }))
			break;
	if (!units->name)
		return -EINVAL;
	part = (uint64_t)((unsigned __int128)frac * units->factor / scale);
	if (__builtin_mul_overflow(whole, units->factor, &v) || __builtin_add_overflow(v, part, &v))
		return -ERANGE;
	*ret = v;
	s->p += j;
	s->n -= j;
	return 0;
}

int value_duration(struct str s, uint64_t *ret)
{
	uint64_t sum = 0, v;

	if (str_eq(s, STR("0"))) {
		*ret = 0;
		return 0;
	}
	do {
		int r = quantity(&s, duration_units, &v);

		if (r)
			return r;
		if (__builtin_add_overflow(sum, v, &sum))
			return -ERANGE;
	} while (s.n);
	*ret = sum;
	return 0;
}

int value_size(struct str s, uint64_t *ret)
{
	uint64_t v;
	int r = str_u64(s, &v);

	if (r == -EINVAL)
		r = quantity(&s, size_units, &v);
	else
		s.n = 0;
	if (r == 0 && s.n)
		r = -EINVAL;
	if (r == 0)
		*ret = v;
	return r;
}

static void put_quantity(struct buf *out, uint64_t v, const struct unit *u)
{
	while (v % u->factor)
		u++;
	buf_printf(out, "%" PRIu64 "%s", v / u->factor, u->name);
}

void value_put_duration(struct buf *out, uint64_t ns)
{
	/* Minutes only from two on and hours as minutes: "60s" and "300s" are how people write time-outs. */
	if (ns == 0)
		buf_puts(out, "0");
	else if (ns % UINT64_C(3600000000000) == 0)
		put_quantity(out, ns, duration_units);
	else
		put_quantity(out, ns, duration_units + 2);
}

void value_put_size(struct buf *out, uint64_t bytes)
{
	if (bytes == 0)
		buf_puts(out, "0");
	else
		put_quantity(out, bytes, size_units);
}

static void put_number(const struct option *o, struct buf *out, uint64_t v)
{
	if (o->type == OPT_DURATION)
		value_put_duration(out, v);
	else if (o->type == OPT_SIZE)
		value_put_size(out, v);
	else
		buf_printf(out, "%" PRIu64, v);
}

static void put_allowed(struct buf *out, const char *allowed)
{
	for (; *allowed; allowed++) {
		if (*allowed == '|')
			buf_puts(out, ", ");
		else
			buf_put(out, allowed, 1);
	}
}

/* <text> among the words of o->allowed? */
static bool enum_ok(const struct option *o, const char *text, struct buf *why)
{
	const char *words[16], *near;
	char *copy = str_dup(str_of(o->allowed)), *save = NULL;
	unsigned n = 0;
	bool ok = false;

	for (char *w = copy ? strtok_r(copy, "|", &save) : NULL; w && n < 15; w = strtok_r(NULL, "|", &save)) {
		ok |= strcmp(w, text) == 0;
		words[n++] = w;
	}
	words[n] = NULL;
	if (!ok) {
		near = suggest(text, words);
		buf_printf(why, "\"%.100s\" is not known", text);
		if (near)
			buf_printf(why, ", did you mean \"%s\"?", near);
		buf_puts(why, near ? " Allowed: " : "; allowed: ");
		put_allowed(why, o->allowed);
	}
	free(copy);
	return ok;
}

static int set_number(const struct option *o, uint64_t *dst, const char *text, struct buf *why)
{
	uint64_t v = 0;
	int r;

	if (o->type == OPT_DURATION)
		r = value_duration(str_of(text), &v);
	else if (o->type == OPT_SIZE)
		r = value_size(str_of(text), &v);
	else
		r = str_u64(str_of(text), &v);
	if (r == -EINVAL) {
		if (o->type == OPT_DURATION)
			buf_printf(why,
				   "\"%.100s\" is not a duration: write a number with h, m, s, ms or us, as in 30s",
				   text);
		else if (o->type == OPT_SIZE)
			buf_printf(
				why,
				"\"%.100s\" is not a size: write a number with B, KiB, MiB, GiB, TiB or kB, MB, GB, TB",
				text);
		else
			buf_printf(why, "\"%.100s\" is not a whole number, allowed: %" PRIu64 " … %" PRIu64, text,
				   o->min, o->max);
		return r;
	}
	if (r || v < o->min || v > o->max) {
		buf_printf(why, "%.100s is out of range, allowed: ", text);
		put_number(o, why, o->min);
		buf_puts(why, " … ");
		put_number(o, why, o->max);
		return -EINVAL;
	}
	*dst = v;
	return 0;
}

static int set_share(double *dst, const char *text, struct buf *why)
{
	size_t n = strlen(text);
	char *end;
	double v = strtod(text, &end);

	if (!n || n > 12 || strspn(text, "0123456789.") != n || *end || v > 1) {
		buf_printf(why, "\"%.100s\" is not a share, allowed: 0 … 1, as in 0.75", text);
		return -EINVAL;
	}
	*dst = v;
	return 0;
}

static int set_string(char **dst, const char *text)
{
	char *copy = str_dup(str_of(text));

	if (!copy)
		return -ENOMEM;
	free(*dst);
	*dst = copy;
	return 0;
}

static int set_bool(bool *dst, const char *t, struct buf *why)
{
	if (!strcmp(t, "true") || !strcmp(t, "yes") || !strcmp(t, "on"))
		*dst = true;
	else if (!strcmp(t, "false") || !strcmp(t, "no") || !strcmp(t, "off"))
		*dst = false;
	else {
		buf_printf(why, "\"%.100s\" is neither true nor false", t);
		return -EINVAL;
	}
	return 0;
}

/* One more word at the end of a list of strings. */
static int add_string(const struct option *o, void *base, const char *text, struct buf *why)
{
	char ***list = (char ***)((char *)base + o->off);
	unsigned *n = (unsigned *)((char *)base + o->off_n);
	char **more, *copy;

	if (o->ok && !o->ok(text, why))
		return -EINVAL;
	if (*n >= CONFIG_LIST_MAX) {
		buf_puts(why, "too many, allowed: 4096");
		return -EINVAL;
	}
	more = realloc(*list, (*n + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	*list = more;
	copy = str_dup(str_of(text));
	if (!copy)
		return -ENOMEM;
	more[(*n)++] = copy;
	return 0;
}

int value_set(const struct option *o, void *base, const char *text, struct buf *why)
{
	void *dst = (char *)base + o->off;

	switch (o->type) {
	case OPT_STRING:
	case OPT_PATH:
		return o->ok && !o->ok(text, why) ? -EINVAL : set_string(dst, text);
	case OPT_ENUM:
		return enum_ok(o, text, why) ? set_string(dst, text) : -EINVAL;
	case OPT_BOOL:
		return set_bool(dst, text, why);
	case OPT_COUNT:
	case OPT_DURATION:
	case OPT_SIZE:
		return set_number(o, dst, text, why);
	case OPT_SHARE:
		return set_share(dst, text, why);
	case OPT_STRINGS:
		return add_string(o, base, text, why);
	default:
		buf_puts(why, "cannot be set by a single value");
		return -EINVAL;
	}
}

bool value_put(const struct option *o, const void *base, struct buf *out)
{
	const void *src = (const char *)base + o->off;

	switch (o->type) {
	case OPT_STRING:
	case OPT_PATH:
	case OPT_ENUM:
		if (!*(char *const *)src)
			return false;
		buf_puts(out, *(char *const *)src);
		return true;
	case OPT_BOOL:
		buf_puts(out, *(const bool *)src ? "true" : "false");
		return true;
	case OPT_COUNT:
	case OPT_DURATION:
	case OPT_SIZE:
		put_number(o, out, *(const uint64_t *)src);
		return true;
	case OPT_SHARE:
		buf_printf(out, "%.10g", *(const double *)src);
		return true;
	default:
		return false;
	}
}

void value_put_type(const struct option *o, struct buf *out)
{
	static const char *const names[] = {
		[OPT_BOOL] = "true or false", [OPT_COUNT] = "number",	   [OPT_DURATION] = "duration",
		[OPT_SIZE] = "size",	      [OPT_SHARE] = "share 0 … 1", [OPT_LIST] = "list"
	};

	if (o->type == OPT_ENUM)
		put_allowed(out, o->allowed);
	else
		buf_puts(out, o->allowed ? o->allowed : names[o->type]);
	if (o->max) {
		buf_puts(out, " ");
		put_number(o, out, o->min);
		buf_puts(out, " … ");
		put_number(o, out, o->max);
	}
	if (o->def)
		buf_printf(out, "; default %s", o->def);
}
