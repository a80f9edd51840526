/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "proxy/proxy_int.h"

#define SWEEP_EVERY NS_PER_S

struct control_post {
	struct loop_post post;
	struct worker *w;
};

static void bury(struct loop_work *work)
{
	struct worker *w = container_of(work, struct worker, bury);

	while (w->graves) {
		struct grave *g = w->graves;

		w->graves = g->next;
		free(g);
	}
}

void worker_bury(struct worker *w, struct grave *g)
{
	g->dead = true;
	g->next = w->graves;
	w->graves = g;
	loop_defer(w->loop, &w->bury);
}

void worker_slim(struct worker *w)
{
	uint64_t reqs = atomic_load_explicit(&w->st->v[STATS_REQ], memory_order_relaxed);
	bool busy = reqs != w->slim_reqs;

	w->slim_reqs = reqs;
	if (busy)
		return;
	buf_free(&w->plain);
	buf_free(&w->spare_body);
	prompt_forget_spare(w);
	template_work_free(w->template_work);
	edges_free(w);
	w->template_work = NULL;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	loop_run(w->loop);
	return NULL;
}

static int worker_listen(struct worker *w, char *err, size_t err_len)
{
	const struct config *cfg = w->sh->cfg;

	w->listeners = calloc(cfg->nlisteners, sizeof(*w->listeners));
	if (!w->listeners)
		return -ENOMEM;
	for (unsigned i = 0; i < cfg->nlisteners; i++)
		w->listeners[i].io.fd = -1;
	for (unsigned i = 0; i < cfg->nlisteners; i++) {
		struct listener *ls = &w->listeners[i];
		struct net_addr a;
		int fd, r;

		r = net_addr_parse(str_of(cfg->listeners[i].address), &a);
		fd = r ? r : net_listen(&a, 4096);
		if (fd < 0) {
			snprintf(err, err_len, "cannot listen on %s: %s", cfg->listeners[i].address, strerror(-fd));
			return fd;
		}
		ls->w = w;
		ls->no = i;
		ls->io.ready = client_accept;
		r = loop_fd_add(w->loop, &ls->io, fd, EPOLLIN);
		if (r) {
			close(fd);
			return r;
		}
	}
	return 0;
}

static int worker_init(struct worker *w, struct proxy *px, unsigned id, char *err, size_t err_len)
{
	w->px = px;
	w->sh = px->sh;
	w->id = id;
	w->st = &px->sh->stats[id];
	w->rng.s = rand_secret();
	list_init(&w->clients);
	loop_work_init(&w->bury, bury);
	loop_timer_init(&w->sweep, upstream_sweep);
	w->loop = loop_new();
	w->carrier = w->loop ? carrier_worker_new(px->sh->datapath, w->loop, splice_event, w) : NULL;
	w->rx = malloc(RX_SIZE);
	w->hits = calloc(MATCH_HITS_MAX, sizeof(*w->hits));
	w->rows = calloc(SCHED_ROWS_MAX, sizeof(*w->rows));
	w->row_blocks = calloc(SCHED_ROWS_MAX, sizeof(*w->row_blocks));
	w->checks = calloc(SCHED_ROWS_MAX, sizeof(*w->checks));
	w->sched = calloc(px->sh->cfg->npools, sizeof(*w->sched));
	if (!w->loop || !w->carrier || !w->rx || !w->hits || !w->rows || !w->row_blocks || !w->checks || !w->sched) {
		snprintf(err, err_len, "out of memory");
		return -ENOMEM;
	}
	loop_timer_set(w->loop, &w->sweep, time_mono() + SWEEP_EVERY);
	return worker_listen(w, err, err_len);
}

static void close_listeners(struct worker *w)
{
	for (unsigned i = 0; w->listeners && i < w->sh->cfg->nlisteners; i++) {
		int fd = w->listeners[i].io.fd;

		if (fd < 0)
			continue;
		loop_fd_del(&w->listeners[i].io);
		close(fd);
	}
}

/* Loop's thread, or after it has ended. */
static bool worker_cleanup(struct worker *w)
{
	bool left = false;

	if (w->loop) {
		list_for_each_safe (it, tmp, &w->clients) {
			struct client *c = container_of(it, struct client, link);

			if (c->req && c->req->spliced)
				left = true; /* the kernel goes on with it when the process is gone */
			else if (c->req)
				request_abort(c->req);
			else
				client_close(c, true);
		}
		upstream_close_idle(w);
		bury(&w->bury);
		close_listeners(w);
	}
	if (left)
		return true;
	carrier_worker_free(w->carrier);
	loop_free(w->loop);
	free(w->listeners);
	free(w->idle);
	free(w->rx);
	free(w->hits);
	free(w->rows);
	free(w->row_blocks);
	free(w->checks);
	free(w->sched);
	buf_free(&w->plain);
	buf_free(&w->spare_body);
	template_work_free(w->template_work);
	edges_free(w);
	prompt_forget_spare(w);
	return false;
}

static void drain_run(struct loop_post *p)
{
	struct control_post *cp = container_of(p, struct control_post, post);
	struct worker *w = cp->w;

	free(cp);
	w->draining = true;
	for (unsigned i = 0; i < w->sh->cfg->nlisteners; i++)
		client_accept_rest(&w->listeners[i]); /* closing resets what has connected and waits */
	close_listeners(w);
	list_for_each_safe (it, tmp, &w->clients)
		client_drain(container_of(it, struct client, link));
	upstream_close_idle(w);
}

struct proxy *proxy_start(struct proxy_shared *sh, unsigned workers, char *err, size_t err_len)
{
	struct proxy *px = calloc(1, sizeof(*px));
	int r = -ENOMEM;

	if (!px)
		return NULL;
	px->sh = sh;
	pthread_mutex_init(&px->ring_lock, NULL);
	px->ring_cap = sh->cfg->decisions ? (unsigned)sh->cfg->decisions : 1;
	px->ring = calloc(px->ring_cap, DECISION_SIZE);
	px->workers = calloc(workers, sizeof(*px->workers));
	if (!px->workers || !px->ring)
		goto fail;
	for (; px->nworkers < workers; px->nworkers++) {
		r = worker_init(&px->workers[px->nworkers], px, px->nworkers, err, err_len);
		if (r) {
			px->nworkers++; /* clean up the half-built one too */
			goto fail;
		}
	}
	for (unsigned i = 0; i < workers; i++) {
		r = -pthread_create(&px->workers[i].thread, NULL, worker_main, &px->workers[i]);
		if (r)
			goto fail;
		px->workers[i].started = true;
	}
	return px;
fail:
	proxy_stop(px);
	errno = -r;
	return NULL;
}

void proxy_drain(struct proxy *px)
{
	atomic_store(&px->sh->draining, true);
	for (unsigned i = 0; i < px->nworkers; i++) {
		struct control_post *cp = malloc(sizeof(*cp));

		if (!cp)
			continue; /* its clients end by their own timers */
		cp->w = &px->workers[i];
		cp->post.run = drain_run;
		loop_post(px->workers[i].loop, &cp->post);
	}
}

bool proxy_stop(struct proxy *px)
{
	bool left = false;

	if (!px)
		return false;
	for (unsigned i = 0; i < px->nworkers; i++)
		if (px->workers[i].started) {
			loop_stop(px->workers[i].loop);
			pthread_join(px->workers[i].thread, NULL);
		}
	for (unsigned i = 0; i < px->nworkers; i++)
		left |= worker_cleanup(&px->workers[i]);
	if (left)
		return true;
	pthread_mutex_destroy(&px->ring_lock);
	free(px->workers);
	free(px->ring);
	free(px);
	return false;
}
