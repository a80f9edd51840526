/* SPDX-License-Identifier: Apache-2.0 */
#include "discovery/discovery.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "discovery/discovery_int.h"

void source_problem(struct source *s, const char *why)
{
	if (!why == !s->problem && (!why || !strcmp(why, s->problem)))
		return;
	free(s->problem);
	s->problem = why ? strdup(why) : NULL;
	if (s->d->sink.problem)
		s->d->sink.problem(s->d->sink.arg, s->pool, s->name, why);
}

static int role_of(const char *s)
{
	if (!s || !strcmp(s, "both"))
		return ROLE_BOTH;
	if (!strcmp(s, "prefill"))
		return ROLE_PREFILL;
	return strcmp(s, "decode") ? -EINVAL : ROLE_DECODE;
}

static int copy_text(char *out, size_t cap, const char *s, const char *what, char *err, size_t err_len)
{
	if (s && strlen(s) >= cap) {
		snprintf(err, err_len, "%s is longer than %zu characters", what, cap - 1);
		return -EINVAL;
	}
	snprintf(out, cap, "%s", s ? s : "");
	return 0;
}

static int address_of(const char *s, struct net_addr *ret, char *err, size_t err_len)
{
	const char *colon = strrchr(s, ':');
	char host[256];
	uint64_t port;

	if (!colon || colon == s || *s == '*' || str_u64(str_of(colon + 1), &port) || !port || port > 65535) {
		snprintf(err, err_len, "\"%.100s\" is not HOST:PORT", s);
		return -EINVAL;
	}
	if (!net_addr_parse(str_of(s), ret))
		return 0;
	if (*s == '[' || (size_t)(colon - s) >= sizeof(host)) {
		snprintf(err, err_len, "\"%.100s\" is not HOST:PORT", s);
		return -EINVAL;
	}
	memcpy(host, s, (size_t)(colon - s));
	host[colon - s] = '\0';
	port = (uint64_t)dns_hosts(host, (uint16_t)port, ret, 1, err, err_len);
	return (int)port > 0 ? 0 : (int)port;
}

#define EVENTS_PATH "/kv_cache_events"

/* SCHEME://HOST[:PORT][/PATH] for the pod at <a>: its address for a host "*", and where it is HTTP, its port and
 * TensorRT-LLM's path for what is not there. */
static int endpoint_at(char *out, size_t cap, const char *text, const struct net_addr *a, const char *what, char *err,
		       size_t err_len)
{
	const char *host = text ? strstr(text, "://") : NULL, *rest, *path;
	bool http = host && !strncmp(text, "http://", 7);
	char ip[NET_NAME_MAX], at[NET_NAME_MAX + 2];
	int n;

	if (!host || (host[3] != '*' && !http))
		return copy_text(out, cap, text, what, err, err_len);
	host += 3;
	rest = *host == '*' ? host + 1 : host;
	path = rest + strcspn(rest, "/");
	net_addr_format_ip(a, ip);
	at[0] = '\0';
	if (*host == '*')
		snprintf(at, sizeof(at), strchr(ip, ':') ? "[%s]" : "%s", ip);
	n = snprintf(out, cap, "%.*s%s%.*s", (int)(host - text), text, at, (int)(path - rest), rest);
	if (http && *host == '*' && path == rest && n > 0 && (size_t)n < cap)
		n += snprintf(out + n, cap - (size_t)n, ":%u", net_addr_port(a));
	if (n > 0 && (size_t)n < cap)
		n += snprintf(out + n, cap - (size_t)n, "%s", *path ? path : http ? EVENTS_PATH : "");
	if (n > 0 && (size_t)n < cap)
		return 0;
	snprintf(err, err_len, "%s is longer than %zu characters", what, cap - 1);
	return -EINVAL;
}

int spec_at(const struct config_pod *p, const struct net_addr *a, struct pod_spec *ret, char *err, size_t err_len)
{
	struct pod_spec s = { .addr = *a, .weight = (unsigned)p->weight, .ranks = p->ranks ? (unsigned)p->ranks : 1 };
	int r = role_of(p->role);

	if (r < 0) {
		snprintf(err, err_len, "role \"%.40s\" is none of both, prefill, decode", p->role);
		return r;
	}
	s.role = (enum pod_role)r;
	r = endpoint_at(s.events, sizeof(s.events), p->events, a, "events", err, err_len);
	if (!r)
		r = endpoint_at(s.replay, sizeof(s.replay), p->replay, a, "replay", err, err_len);
	if (!r)
		r = copy_text(s.metrics, sizeof(s.metrics), p->metrics, "metrics", err, err_len);
	if (!r)
		*ret = s;
	return r;
}

int discovery_spec(const struct config_pod *p, struct pod_spec *ret, char *err, size_t err_len)
{
	struct net_addr a;
	int r = address_of(p->address ? p->address : "", &a, err, err_len);

	return r ? r : spec_at(p, &a, ret, err, err_len);
}

static bool is_literal(const struct config_pod *p)
{
	struct net_addr a;

	return p->address && !net_addr_parse(str_of(p->address), &a);
}

void source_pods(struct source *s, struct config_pod *p, unsigned n)
{
	struct discovery *d = s->d;
	struct pod_spec *specs;
	bool literal = true;
	char err[200] = "";
	unsigned got = 0;

	s->gen++;
	for (unsigned i = 0; i < n; i++)
		literal &= is_literal(&p[i]);
	if (!literal && d->resolver) {
		resolver_pods(d->resolver, (unsigned)(s - d->sources), s->gen, p, n);
		return;
	}
	specs = calloc(n ? n : 1, sizeof(*specs));
	for (unsigned i = 0; specs && i < n; i++) {
		char why[200];

		if (!discovery_spec(&p[i], &specs[got], why, sizeof(why)))
			got++;
		else if (!err[0])
			snprintf(err, sizeof(err), "%s", why);
	}
	if (specs)
		d->sink.set(d->sink.arg, s->pool, s->name, specs, got);
	source_problem(s, !specs ? "out of memory" : err[0] ? err : NULL);
	free(specs);
	config_pods_free(p, n);
}

/* Names too are looked up before it returns, whatever that takes; those that fail then go to the resolver. */
static void static_start(struct source *s, const struct config_pool *c)
{
	struct pod_spec *specs = calloc(c->npods ? c->npods : 1, sizeof(*specs));
	struct config_pod *copy;
	char err[200] = "";
	unsigned n = 0;

	for (unsigned i = 0; specs && i < c->npods; i++) {
		char why[200];

		if (!discovery_spec(&c->pods[i], &specs[n], why, sizeof(why)))
			n++;
		else if (!err[0])
			snprintf(err, sizeof(err), "%s", why);
	}
	if (specs)
		s->d->sink.set(s->d->sink.arg, s->pool, s->name, specs, n);
	free(specs);
	source_problem(s, err[0] ? err : NULL);
	copy = err[0] ? pods_copy(c->pods, c->npods) : NULL;
	if (copy)
		resolver_pods(s->d->resolver, (unsigned)(s - s->d->sources), s->gen, copy, c->npods);
}

static int source_start(struct source *s, const struct config_pool *c)
{
	unsigned i = (unsigned)(s - s->d->sources);

	switch (c->discovery) {
	case DISC_STATIC:
		s->name = "static";
		static_start(s, c);
		return 0;
	case DISC_FILE:
		s->name = "file";
		s->watch = watch_start(s, c->file);
		return s->watch ? 0 : -errno;
	case DISC_DNS:
		s->name = "dns";
		return resolver_dns(s->d->resolver, i, s->gen, c);
	}
	return -EINVAL;
}

struct discovery *discovery_start(struct loop *l, const struct config *cfg, struct discovery_sink sink)
{
	struct discovery *d = calloc(1, sizeof(*d) + cfg->npools * sizeof(d->sources[0]));
	int r = 0;

	if (!d)
		return NULL;
	d->loop = l;
	d->cfg = cfg;
	d->sink = sink;
	d->n = cfg->npools;
	d->resolver = resolver_start(d, d->n);
	if (!d->resolver) {
		r = errno;
		free(d);
		errno = r;
		return NULL;
	}
	for (unsigned i = 0; i < d->n && !r; i++) {
		d->sources[i] = (struct source){ .d = d, .pool = i, .gen = 1 };
		r = source_start(&d->sources[i], &cfg->pools[i]);
	}
	if (!r)
		return d;
	discovery_stop(d);
	errno = -r;
	return NULL;
}

void discovery_stop(struct discovery *d)
{
	if (!d)
		return;
	resolver_stop(d->resolver);
	for (unsigned i = 0; i < d->n; i++) {
		watch_stop(d->sources[i].watch);
		free(d->sources[i].problem);
	}
	free(d);
}
