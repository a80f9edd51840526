/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine's clock. A step's end is a timerfd's absolute time, so that streams keep their pace to some 50 µs; the
 * next step starts where the last one should have ended, unless the process is late by more than a step. Requests of
 * one turn of the loop enter the same step.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/time.h"
#include "sim.h"

#define STEPS_PER_TURN 64 /* where steps take no time */
#define BACKLOG	       4096

static void arm(struct pod *p, uint64_t at)
{
	struct itimerspec t = { .it_value = { .tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S) } };

	p->deadline = at;
	timerfd_settime(p->tick.fd, TFD_TIMER_ABSTIME, &t, NULL);
}

/* Steps from <now> on until one takes time. */
static void run(struct pod *p, uint64_t now)
{
	for (int i = 0; i < STEPS_PER_TURN; i++) {
		uint64_t len = engine_begin(&p->e, now);

		if (len == ENGINE_IDLE)
			return;
		if (len) {
			arm(p, now + len);
			return;
		}
		engine_end(&p->e, now);
	}
	loop_defer(p->sim->loop, &p->kick);
}

static void kick_run(struct loop_work *w)
{
	struct pod *p = container_of(w, struct pod, kick);
	uint64_t now = time_mono();

	if (p->e.in_step && !p->e.only_waits)
		return;
	if (p->e.in_step)
		engine_end(&p->e, now);
	run(p, now);
}

void pod_kick(struct pod *p)
{
	loop_defer(p->sim->loop, &p->kick);
}

static void tick(struct loop_fd *f, uint32_t events)
{
	struct pod *p = container_of(f, struct pod, tick);
	uint64_t n, now = time_mono(), late;

	if (read(f->fd, &n, sizeof(n)) != sizeof(n) || !p->e.in_step || now < p->deadline)
		return;
	late = now - p->deadline;
	engine_end(&p->e, now);
	run(p, late < (uint64_t)p->e.cost.itl ? p->deadline : now);
}

static void listener_ready(struct loop_fd *f, uint32_t events)
{
	for (int i = 0; i < 64; i++)
		if (conn_accept(container_of(f, struct pod, listener)) < 0)
			return;
}

static void reap_run(struct loop_work *w)
{
	struct pod *p = container_of(w, struct pod, reap);

	while (!list_empty(&p->dead))
		conn_free(container_of(p->dead.next, struct conn, link));
	pod_kick(p); /* what they held is free */
}

const struct opts_lora *pod_lora(const struct pod *p, const char *name)
{
	for (unsigned i = 0; i < p->o.nlora; i++)
		if (!strcmp(p->o.lora[i].name, name))
			return &p->o.lora[i];
	return NULL;
}

static struct engine_limits limits(const struct opts *o)
{
	return (struct engine_limits){
		.block_size = o->block_size,
		.max_num_seqs = o->max_num_seqs,
		.max_batched_tokens = o->max_batched_tokens,
		.max_waiting = o->max_waiting,
		.max_loras = o->max_loras,
		.untagged_keys = *o->extra_keys == 'u',
	};
}

static struct engine_cost costs(const struct opts *o)
{
	return (struct engine_cost){
		.ttft = o->ttft,
		.ttft_std = o->ttft_std,
		.itl = o->itl,
		.itl_std = o->itl_std,
		.overhead = o->overhead,
		.per_token = o->per_token,
		.transfer = o->transfer,
		.transfer_per_token = o->transfer_per_token,
		.load_factor = o->load_factor,
	};
}

void pod_configure(struct pod *p)
{
	p->e.lim = limits(&p->o);
	p->e.cost = costs(&p->o);
	pod_kick(p);
}

static void no_stored(struct kv_sink *s, const struct kv_stored *e)
{
}

static void no_copied(struct kv_sink *s, const struct digest *hash)
{
}

static void no_removed(struct kv_sink *s, const struct digest *hash, bool below)
{
}

static void no_cleared(struct kv_sink *s)
{
}

static void step(struct engine *e)
{
	struct pod *p = container_of(e, struct pod, e);

	if (p->pub)
		pub_step(p->pub);
}

static const struct engine_ops ops = { gen_token, gen_done, step };

static int start(struct pod *p, const struct net_addr *a, char *err, size_t err_len)
{
	struct loop *l = p->sim->loop;
	struct engine_limits lim = limits(&p->o);
	struct engine_cost cost = costs(&p->o);
	struct net_addr bound = { .len = sizeof(bound.v6) };
	int fd = net_listen(a, BACKLOG), r;

	net_addr_format(a, p->name);
	if (fd < 0) {
		snprintf(err, err_len, "cannot listen on %s: %s", p->name, strerror(-fd));
		return fd;
	}
	p->listener.ready = listener_ready;
	r = loop_fd_add(l, &p->listener, fd, EPOLLIN);
	if (r) {
		close(fd);
		return r;
	}
	getsockname(fd, &bound.sa, &bound.len);
	net_addr_format(&bound, p->name);
	net_addr_format_ip(&bound, p->host);
	p->port = net_addr_port(&bound);

	fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	p->tick.ready = tick;
	r = loop_fd_add(l, &p->tick, fd, EPOLLIN);
	if (r) {
		close(fd);
		return r;
	}
	if (p->o.zmq_endpoint) {
		p->pub = pub_new(l, p->sim->zmq, &p->o, p->host, p->port, p->index, err, err_len);
		if (!p->pub)
			return -EIO;
	}
	if (p->o.events_http) {
		p->kvhttp = kvhttp_new(&p->o);
		if (!p->kvhttp)
			return -ENOMEM;
	}
	r = engine_init(&p->e, &lim, &cost, &ops, p->o.kv_blocks, p->o.prefix_caching, str_of(p->o.hash_seed),
			p->o.seed,
			p->pub	    ? pub_sink(p->pub)
			: p->kvhttp ? kvhttp_sink(p->kvhttp)
				    : &p->no_events);
	if (!r && p->o.host_blocks)
		r = engine_add_host(&p->e, p->o.host_blocks);
	return r;
}

struct pod *pod_new(struct sim *s, const struct opts *o, const struct net_addr *a, uint32_t index, char *err,
		    size_t err_len)
{
	struct pod *p = calloc(1, sizeof(*p));

	if (!p) {
		snprintf(err, err_len, "out of memory");
		return NULL;
	}
	p->sim = s;
	p->o = *o;
	p->index = index;
	p->listener.fd = p->tick.fd = -1;
	p->no_events = (struct kv_sink){ no_stored, no_copied, no_removed, no_cleared };
	p->rng.s = mix64(o->seed + 1) ^ rand_secret(); /* ids differ from run to run */
	p->start_ns = time_mono();
	p->start_wall = (double)time_wall() * 1e-9;
	list_init(&p->conns);
	list_init(&p->dead);
	loop_work_init(&p->kick, kick_run);
	loop_work_init(&p->reap, reap_run);
	random_hex(p, p->engine_id, 32);
	if (start(p, a, err, err_len)) {
		pod_free(p);
		return NULL;
	}
	return p;
}

static void close_fd(struct loop_fd *f)
{
	int fd = f->fd;

	loop_fd_del(f);
	if (fd >= 0)
		close(fd);
}

void pod_free(struct pod *p)
{
	if (!p)
		return;
	while (!list_empty(&p->conns))
		conn_kill(container_of(p->conns.next, struct conn, link), false);
	while (!list_empty(&p->dead))
		conn_free(container_of(p->dead.next, struct conn, link));
	list_del(&p->kick.link);
	list_del(&p->reap.link);
	close_fd(&p->listener);
	close_fd(&p->tick);
	engine_free(&p->e);
	pub_free(p->pub);
	kvhttp_free(p->kvhttp);
	free(p);
}
