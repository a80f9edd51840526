/* SPDX-License-Identifier: Apache-2.0
 * What strings must look like: addresses, end points, paths, names.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <sys/un.h>

#include "config/config_int.h"

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
