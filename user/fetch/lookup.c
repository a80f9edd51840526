/* SPDX-License-Identifier: Apache-2.0
 * One thread for each look-up: names are rare (pods have addresses), and a thread that hangs holds up nobody else.
 *
 * Whoever gives up and the thread that has found something meet at the lock: before, the thread frees what it has;
 * after, the post does, which is on its way to a loop that is still there.
 */
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "fetch/fetch_int.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void deliver(struct loop_post *p)
{
	struct lookup *l = container_of(p, struct lookup, post);

	if (l->ask)
		l->done(l->ask, l);
	free(l);
}

static void *look(void *arg)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct lookup *l = arg;
	struct addrinfo *list = NULL;

	l->err = getaddrinfo(l->host, NULL, &hints, &list);
	for (struct addrinfo *i = l->err ? NULL : list; i && l->n < LOOKUP_ADDRS; i = i->ai_next) {
		struct net_addr *a = &l->addr[l->n];

		if (i->ai_addrlen > sizeof(a->v6))
			continue;
		memcpy(&a->sa, i->ai_addr, i->ai_addrlen);
		a->len = i->ai_addrlen;
		l->n++;
	}
	if (!l->err)
		freeaddrinfo(list);
	pthread_mutex_lock(&lock);
	if (l->ask)
		loop_post(l->loop, &l->post);
	else
		free(l);
	pthread_mutex_unlock(&lock);
	return NULL;
}

struct lookup *lookup_start(struct loop *loop, struct str host, struct fetch_ask *a,
			    void (*done)(struct fetch_ask *a, struct lookup *l))
{
	struct lookup *l = calloc(1, sizeof(*l));
	sigset_t all, old;
	pthread_t t;
	int e;

	if (!l)
		return NULL;
	if (host.n >= sizeof(l->host)) {
		free(l);
		errno = ENAMETOOLONG;
		return NULL;
	}
	memcpy(l->host, host.p, host.n);
	l->loop = loop;
	l->ask = a;
	l->done = done;
	l->post.run = deliver;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	e = pthread_create(&t, NULL, look, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e) {
		free(l);
		errno = e;
		return NULL;
	}
	pthread_detach(t);
	return l;
}

void lookup_give_up(struct lookup *l)
{
	if (!l)
		return;
	pthread_mutex_lock(&lock);
	l->ask = NULL;
	pthread_mutex_unlock(&lock);
}
