/* SPDX-License-Identifier: Apache-2.0
 * Prometheus' text exposition format, one line at a time, in place:
 *
 *   name[{label="value",…}] value [timestamp] [# exemplar]
 *
 * Escapes in label values (\\ \" \n) stay as they are; a quoted value may hold } and ,. What does not parse is one
 * malformed line and nothing else.
 */
#include <math.h>
#include <stdlib.h>

#include "scrape/scrape_int.h"

#define LABELS_MAX (sizeof(((struct expo_sample *)0)->labels) / sizeof(struct expo_label))

/* 1: anywhere in a name, 2: not at its beginning */
static const uint8_t name_chars[256] = {
	['a' ... 'z'] = 1, ['A' ... 'Z'] = 1, ['_'] = 1, [':'] = 1, ['0' ... '9'] = 2,
};

static struct str take_name(struct str *in)
{
	size_t n = 0;
	struct str r;

	while (n < in->n && name_chars[(unsigned char)in->p[n]])
		n++;
	if (n && name_chars[(unsigned char)in->p[0]] == 2)
		n = 0;
	r = (struct str){ in->p, n };
	in->p += n;
	in->n -= n;
	return r;
}

static void take_space(struct str *in)
{
	while (in->n && (*in->p == ' ' || *in->p == '\t')) {
		in->p++;
		in->n--;
	}
}

static bool take_char(struct str *in, char c)
{
	take_space(in);
	if (!in->n || *in->p != c)
		return false;
	in->p++;
	in->n--;
	return true;
}

static bool take_quoted(struct str *in, struct str *ret)
{
	size_t n = 0;

	if (!take_char(in, '"'))
		return false;
	while (n < in->n && in->p[n] != '"')
		n += in->p[n] == '\\' ? 2 : 1;
	if (n >= in->n)
		return false;
	*ret = (struct str){ in->p, n };
	in->p += n + 1;
	in->n -= n + 1;
	return true;
}

static bool take_labels(struct str *in, struct expo_sample *s)
{
	while (!take_char(in, '}')) {
		struct expo_label l;

		if (s->nlabels && !take_char(in, ','))
			return false;
		if (take_char(in, '}')) /* a comma behind the last one is allowed */
			return true;
		if (s->nlabels == LABELS_MAX)
			return false;
		l.name = take_name(in);
		if (!l.name.n || !take_char(in, '=') || !take_quoted(in, &l.value))
			return false;
		s->labels[s->nlabels++] = l;
	}
	return true;
}

static bool take_value(struct str *in, double *ret)
{
	char text[64], *end;
	size_t n = 0;

	take_space(in);
	while (n < in->n && in->p[n] != ' ' && in->p[n] != '\t')
		n++;
	if (!n || n >= sizeof(text))
		return false;
	memcpy(text, in->p, n);
	text[n] = '\0';
	in->p += n;
	in->n -= n;
	*ret = strtod(text, &end);
	return end == text + n;
}

/* Behind the value: a timestamp, an exemplar, or both. */
static bool take_rest(struct str *in)
{
	double ts;

	take_space(in);
	if (!in->n || *in->p == '#')
		return true;
	if (!take_value(in, &ts))
		return false;
	take_space(in);
	return !in->n || *in->p == '#';
}

/* Behind the name. */
static bool rest(struct str in, struct expo_sample *s)
{
	s->nlabels = 0;
	if (in.n && *in.p != '{' && *in.p != ' ' && *in.p != '\t')
		return false;
	if (take_char(&in, '{') && !take_labels(&in, s))
		return false;
	return take_value(&in, &s->value) && take_rest(&in);
}

unsigned expo_each(struct str text, bool (*want)(struct str name),
		   void (*sample)(void *arg, const struct expo_sample *s), void *arg)
{
	struct expo_sample s;
	unsigned bad = 0;

	while (text.n) {
		const char *nl = memchr(text.p, '\n', text.n);
		struct str l = { text.p, nl ? (size_t)(nl - text.p) : text.n };

		text.p += l.n + (nl ? 1 : 0);
		text.n -= l.n + (nl ? 1 : 0);
		if (!l.n || *l.p == '#')
			continue;
		if (l.p[l.n - 1] == '\r')
			l.n--;
		l = str_trim(l);
		if (!l.n || *l.p == '#')
			continue;
		s.name = take_name(&l);
		if (!s.name.n)
			bad++;
		else if (want && !want(s.name))
			continue;
		else if (rest(l, &s))
			sample(arg, &s);
		else
			bad++;
	}
	return bad;
}

unsigned expo_parse(struct str text, void (*sample)(void *arg, const struct expo_sample *s), void *arg)
{
	return expo_each(text, NULL, sample, arg);
}
