/* SPDX-License-Identifier: Apache-2.0
 * A thread for look-ups, because getaddrinfo blocks for as long as name servers please.
 *
 * Each source has a slot with what it wants; the thread takes a copy under the lock, looks up without it, and posts
 * what it has found to the loop, marked with the wish's generation. The resolver is counted by the discovery, the
 * thread and each post on its way: a thread that hangs in a look-up holds nobody up at the end, and what comes late
 * finds <d> NULL.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/time.h"
#include "discovery/discovery_int.h"

#define RETRY_NS   (5 * NS_PER_S)
#define DNS_MIN_NS NS_PER_S

enum want { WANT_NOTHING, WANT_PODS, WANT_DNS };

struct slot {
	enum want want;
	uint32_t gen;
	uint64_t due_ns;	 /* UINT64_MAX: never again */
	struct config_pod *pods; /* WANT_DNS: one, what the found ones have in common */
	unsigned npods;
	char *name, *port;
	uint64_t interval_ns;
};

struct resolver {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	unsigned refs;
	struct discovery *d; /* NULL: stopped */
	unsigned n;
	struct slot slots[];
};

struct found {
	struct loop_post post;
	struct resolver *r;
	unsigned source;
	uint32_t gen;
	bool keep;     /* nothing was found: the last set stands */
	char why[256]; /* "": no problem */
	unsigned n;
	struct pod_spec specs[];
};

static void slot_clear(struct slot *s)
{
	config_pods_free(s->pods, s->npods);
	free(s->name);
	free(s->port);
	*s = (struct slot){ .due_ns = UINT64_MAX };
}

/* With the lock held, which it gives back. */
static void unref_unlock(struct resolver *r)
{
	bool last = --r->refs == 0;

	pthread_mutex_unlock(&r->lock);
	if (!last)
		return;
	for (unsigned i = 0; i < r->n; i++)
		slot_clear(&r->slots[i]);
	pthread_cond_destroy(&r->wake);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

/* On the loop. */
static void deliver(struct loop_post *p)
{
	struct found *f = container_of(p, struct found, post);
	struct resolver *r = f->r;
	struct discovery *d;
	struct source *s;

	pthread_mutex_lock(&r->lock);
	d = r->d; /* only the loop's thread sets it to NULL */
	unref_unlock(r);
	s = d ? &d->sources[f->source] : NULL;
	if (s && s->gen == f->gen) {
		if (!f->keep)
			d->sink.set(d->sink.arg, s->pool, s->name, f->specs, f->n);
		source_problem(s, f->why[0] ? f->why : NULL);
	}
	free(f);
}

static struct found *found_new(unsigned source, uint32_t gen)
{
	struct found *f = calloc(1, sizeof(*f) + PODS_MAX * sizeof(f->specs[0]));

	if (f) {
		f->post.run = deliver;
		f->source = source;
		f->gen = gen;
	}
	return f;
}

/* Those that resolve are delivered, the rest is the problem. Returns when to look again. */
static uint64_t look_pods(struct found *f, const struct config_pod *pods, unsigned n)
{
	unsigned missing = 0;

	for (unsigned i = 0; i < n && f->n < PODS_MAX; i++) {
		char why[200];

		if (!discovery_spec(&pods[i], &f->specs[f->n], why, sizeof(why))) {
			f->n++;
			continue;
		}
		if (!missing++)
			snprintf(f->why, sizeof(f->why), "%s", why);
	}
	if (missing > 1) {
		size_t at = strlen(f->why);

		snprintf(f->why + at, sizeof(f->why) - at, " (and %u more)", missing - 1);
	}
	return missing ? RETRY_NS : UINT64_MAX;
}

static uint64_t look_dns(struct found *f, const char *name, const char *port, uint64_t interval,
			 const struct config_pod *common)
{
	struct net_addr *a = calloc(PODS_MAX, sizeof(*a));
	struct __res_state st = { 0 };
	uint32_t ttl = UINT32_MAX;
	int n = -ENOMEM;

	snprintf(f->why, sizeof(f->why), "out of memory");
	if (a && port[0] != '_') {
		n = dns_hosts(name, (uint16_t)strtoul(port, NULL, 10), a, PODS_MAX, f->why, sizeof(f->why));
	} else if (a && !res_ninit(&st)) {
		n = dns_srv(&st, port, name, a, PODS_MAX, &ttl, f->why, sizeof(f->why));
		res_nclose(&st);
	}
	f->keep = n < 0;
	if (n >= 0)
		f->why[0] = '\0';
	for (int i = 0; i < n; i++)
		if (!spec_at(common, &a[i], &f->specs[f->n], f->why, sizeof(f->why)))
			f->n++;
	free(a);
	if (ttl != UINT32_MAX && ttl * NS_PER_S < interval)
		interval = ttl * NS_PER_S;
	return interval < DNS_MIN_NS ? DNS_MIN_NS : interval;
}

struct config_pod *pods_copy(const struct config_pod *p, unsigned n)
{
	struct config_pod *c = calloc(n ? n : 1, sizeof(*c));

	for (unsigned i = 0; c && i < n; i++) {
		c[i] = p[i];
		c[i].address = p[i].address ? strdup(p[i].address) : NULL;
		c[i].role = p[i].role ? strdup(p[i].role) : NULL;
		c[i].events = p[i].events ? strdup(p[i].events) : NULL;
		c[i].replay = p[i].replay ? strdup(p[i].replay) : NULL;
		c[i].metrics = p[i].metrics ? strdup(p[i].metrics) : NULL;
	}
	return c;
}

/* With the lock held; gives it up meanwhile. */
static void look(struct resolver *r, unsigned i)
{
	struct slot *s = &r->slots[i], mine = *s;
	struct found *f = found_new(i, mine.gen);
	uint64_t again = RETRY_NS;
	struct discovery *d;

	mine.pods = mine.pods ? pods_copy(mine.pods, mine.npods) : NULL;
	mine.name = mine.name ? strdup(mine.name) : NULL;
	mine.port = mine.port ? strdup(mine.port) : NULL;
	pthread_mutex_unlock(&r->lock);
	if (f && mine.want == WANT_PODS && mine.pods)
		again = look_pods(f, mine.pods, mine.npods);
	else if (f && mine.want == WANT_DNS && mine.name && mine.port && mine.pods)
		again = look_dns(f, mine.name, mine.port, mine.interval_ns, mine.pods);
	config_pods_free(mine.pods, mine.npods);
	free(mine.name);
	free(mine.port);
	pthread_mutex_lock(&r->lock);
	if (s->gen == mine.gen)
		s->due_ns = again == UINT64_MAX ? UINT64_MAX : time_mono() + again;
	d = r->d;
	if (d && f) {
		f->r = r;
		r->refs++;
		loop_post(d->loop, &f->post);
	} else {
		free(f);
	}
}

static void *run(void *arg)
{
	struct resolver *r = arg;

	pthread_mutex_lock(&r->lock);
	while (r->d) {
		uint64_t due = UINT64_MAX;
		unsigned first = 0;

		for (unsigned i = 0; i < r->n; i++)
			if (r->slots[i].want && r->slots[i].due_ns < due) {
				due = r->slots[i].due_ns;
				first = i;
			}
		if (due <= time_mono()) {
			look(r, first);
		} else if (due == UINT64_MAX) {
			pthread_cond_wait(&r->wake, &r->lock);
		} else {
			struct timespec ts = { .tv_sec = (time_t)(due / NS_PER_S), .tv_nsec = (long)(due % NS_PER_S) };

			pthread_cond_timedwait(&r->wake, &r->lock, &ts);
		}
	}
	unref_unlock(r);
	return NULL;
}

struct resolver *resolver_start(struct discovery *d, unsigned nsources)
{
	struct resolver *r = calloc(1, sizeof(*r) + nsources * sizeof(r->slots[0]));
	pthread_condattr_t attr;
	sigset_t all, old;
	pthread_t t;
	int e;

	if (!r)
		return NULL;
	r->d = d;
	r->n = nsources;
	r->refs = 2;
	for (unsigned i = 0; i < nsources; i++)
		r->slots[i].due_ns = UINT64_MAX;
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->wake, &attr);
	pthread_condattr_destroy(&attr);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	e = pthread_create(&t, NULL, run, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!e) {
		pthread_detach(t);
		return r;
	}
	r->refs = 1;
	pthread_mutex_lock(&r->lock);
	unref_unlock(r);
	errno = e;
	return NULL;
}

void resolver_stop(struct resolver *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->d = NULL;
	pthread_cond_signal(&r->wake);
	unref_unlock(r);
}

static void want(struct resolver *r, unsigned i, const struct slot *s)
{
	pthread_mutex_lock(&r->lock);
	slot_clear(&r->slots[i]);
	r->slots[i] = *s;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
}

void resolver_pods(struct resolver *r, unsigned i, uint32_t gen, struct config_pod *p, unsigned n)
{
	want(r, i, &(struct slot){ .want = WANT_PODS, .gen = gen, .pods = p, .npods = n });
}

int resolver_dns(struct resolver *r, unsigned i, uint32_t gen, const struct config_pool *c)
{
	struct config_pod common = {
		.events = c->dns_events, .replay = c->dns_replay, .weight = 1, .ranks = c->dns_ranks
	};
	struct slot s = { .want = WANT_DNS, .gen = gen, .interval_ns = c->dns_interval, .npods = 1 };

	s.name = strdup(c->dns_name);
	s.port = strdup(c->dns_port);
	s.pods = pods_copy(&common, 1);
	if (!s.name || !s.port || !s.pods) {
		s.npods = s.pods ? 1 : 0;
		slot_clear(&s);
		return -ENOMEM;
	}
	want(r, i, &s);
	return 0;
}
