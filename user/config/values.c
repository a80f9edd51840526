/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/un.h>

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
	default:
		return false;
	}
}

void value_put_type(const struct option *o, struct buf *out)
{
	static const char *const names[] = { [OPT_BOOL] = "true or false",
					     [OPT_COUNT] = "number",
					     [OPT_DURATION] = "duration",
					     [OPT_SIZE] = "size",
					     [OPT_LIST] = "list" };

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

/* The parts of HOST:PORT, brackets taken off. */
static bool split_hostport(struct str s, struct str *host, struct str *port, bool *v6)
{
	const char *colon = s.p && s.n ? memrchr(s.p, ':', s.n) : NULL;

	if (!colon)
		return false;
	*host = (struct str){ s.p, (size_t)(colon - s.p) };
	*port = (struct str){ colon + 1, s.n - host->n - 1 };
	*v6 = host->n >= 2 && host->p[0] == '[' && host->p[host->n - 1] == ']';
	if (*v6)
		*host = (struct str){ host->p + 1, host->n - 2 };
	return true;
}

static bool port_ok(struct str s, uint64_t least)
{
	uint64_t v;

	return str_u64(s, &v) == 0 && v >= least && v <= 65535;
}

static bool literal_ok(struct str host, bool v6)
{
	unsigned char addr[16];
	char text[64];
	char *zone;

	if (host.n >= sizeof(text))
		return false;
	memcpy(text, host.p, host.n);
	text[host.n] = '\0';
	zone = v6 ? strchr(text, '%') : NULL;
	if (zone)
		*zone = '\0';
	return inet_pton(v6 ? AF_INET6 : AF_INET, text, addr) == 1;
}

static bool name_ok(struct str s)
{
	if (s.n == 0 || s.n > 253)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && !strchr("-._", s.p[i]))
			return false;
	return isalnum((unsigned char)s.p[0]) || s.p[0] == '_';
}

static bool hostport_ok(struct str s)
{
	struct str host, port;
	bool v6;

	return split_hostport(s, &host, &port, &v6) && port_ok(port, 1) &&
	       (v6 ? literal_ok(host, true) : name_ok(host));
}

bool ok_listen(const char *t, struct buf *why)
{
	struct str host, port;
	bool v6;

	if (split_hostport(str_of(t), &host, &port, &v6) && port_ok(port, 0) &&
	    (literal_ok(host, v6) || (!v6 && (host.n == 0 || str_eq(host, STR("*"))))))
		return true;
	buf_printf(why, "\"%.100s\" is not an address with a port: write 0.0.0.0:8080, [::]:8080 or :8080", t);
	return false;
}

bool ok_admin(const char *t, struct buf *why)
{
	return !*t || ok_listen(t, why);
}

bool ok_hostport(const char *t, struct buf *why)
{
	if (hostport_ok(str_of(t)))
		return true;
	buf_printf(why, "\"%.100s\" is not HOST:PORT: write 10.0.0.1:8000, [fd00::1]:8000 or name:8000", t);
	return false;
}

/* "*": the pod's own address. */
static bool endpoint_ok(struct str s)
{
	if (str_starts(s, STR("*:")))
		return port_ok((struct str){ s.p + 2, s.n - 2 }, 1);
	return hostport_ok(s);
}

static bool zmq_ok(struct str s)
{
	return s.n < 128 && str_starts(s, STR("tcp://")) && endpoint_ok((struct str){ s.p + 6, s.n - 6 });
}

static bool http_ok(struct str s)
{
	const char *slash;

	if (s.n >= 100 || !str_starts(s, STR("http://")))
		return false;
	s = (struct str){ s.p + 7, s.n - 7 };
	slash = memchr(s.p, '/', s.n);
	for (const char *p = slash; p && p < s.p + s.n; p++)
		if (*p <= ' ' || *p == '#' || (unsigned char)*p >= 0x7f)
			return false;
	s.n = slash ? (size_t)(slash - s.p) : s.n;
	return str_eq(s, STR("*")) || endpoint_ok(s);
}

bool ok_events(const char *t, struct buf *why)
{
	if (zmq_ok(str_of(t)) || http_ok(str_of(t)))
		return true;
	buf_printf(why,
		   "\"%.100s\" is not a place of events: write tcp://HOST:PORT (ZeroMQ) or http://HOST:PORT "
		   "(TensorRT-LLM); HOST may be *, the pod's own address",
		   t);
	return false;
}

bool ok_replay(const char *t, struct buf *why)
{
	if (zmq_ok(str_of(t)))
		return true;
	buf_printf(why,
		   "\"%.100s\" is not a ZeroMQ end point: write tcp://HOST:PORT; HOST may be *, the pod's own address",
		   t);
	return false;
}

bool ok_metrics(const char *t, struct buf *why)
{
	struct str s = str_of(t);
	const char *slash = strchr(t, '/');

	if (s.n < 128 && hostport_ok((struct str){ t, slash ? (size_t)(slash - t) : s.n }))
		return true;
	buf_printf(why, "\"%.100s\" is not a place of metrics: write HOST:PORT or HOST:PORT/PATH", t);
	return false;
}

bool ok_metrics_port(const char *t, struct buf *why)
{
	if (strcmp(t, "same") == 0 || port_ok(str_of(t), 1))
		return true;
	buf_printf(why, "\"%.100s\" is not a port; allowed: same, 1 … 65535", t);
	return false;
}

bool ok_dns_name(const char *t, struct buf *why)
{
	if (name_ok(str_of(t)))
		return true;
	buf_printf(why, "\"%.100s\" is not a host name", t);
	return false;
}

bool ok_dns_port(const char *t, struct buf *why)
{
	struct str s = str_of(t);

	if (port_ok(s, 1) || (s.n > 6 && t[0] == '_' && name_ok(s) && strcmp(t + s.n - 5, "._tcp") == 0))
		return true;
	buf_printf(why, "\"%.100s\" is neither a port (1 … 65535) nor a service such as _http._tcp", t);
	return false;
}

bool ok_http_path(const char *t, struct buf *why)
{
	for (const char *p = t; t[0] == '/'; p++) {
		if (!*p)
			return true;
		if (*p == ' ' || *p == '#' || (unsigned char)*p >= 0x7f)
			break;
	}
	buf_printf(why, "\"%.100s\" is not a path: it must begin with / and hold no spaces", t);
	return false;
}

bool ok_socket(const char *t, struct buf *why)
{
	size_t n = strlen(t);

	if (n && n < sizeof(((struct sockaddr_un *)0)->sun_path))
		return true;
	buf_printf(why, "\"%.120s\" cannot be the name of a Unix socket: 1 … 107 bytes are allowed", t);
	return false;
}

bool ok_devices(const char *t, struct buf *why)
{
	for (;;) {
		size_t n = strcspn(t, ",");

		if (n == 0 || n > 15 || memchr(t, '/', n) || memchr(t, ' ', n)) {
			buf_printf(why, "\"%.100s\" is not a network device: write auto, or names joined by commas", t);
			return false;
		}
		if (!t[n])
			return true;
		t += n + 1;
	}
}

bool ok_name(const char *t, struct buf *why)
{
	struct str s = str_of(t);

	if (s.n <= 63 && name_ok(s))
		return true;
	buf_printf(why, "\"%.100s\" is not a name: 1 … 63 letters, digits, - . _ are allowed", t);
	return false;
}

bool ok_nonempty(const char *t, struct buf *why)
{
	if (*t)
		return true;
	buf_puts(why, "is empty");
	return false;
}
