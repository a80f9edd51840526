/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <zmq.h>

#include "base/log.h"
#include "sim.h"

static void signalled(struct loop_fd *f, uint32_t events)
{
	loop_stop(f->loop);
}

/* SIGINT and SIGTERM as a descriptor; before any thread, so that all of them have the signals blocked. */
static int catch_signals(struct loop *l, struct loop_fd *f)
{
	sigset_t set;
	int fd, r;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	f->ready = signalled;
	r = loop_fd_add(l, f, fd, EPOLLIN);
	if (r)
		close(fd);
	return r;
}

/* The addresses to serve: --listen as given, or --host with --port and those behind it. */
static int addresses(const struct opts *o, struct net_addr **ret, unsigned *ret_n)
{
	unsigned n = o->listen.n ? o->listen.n : o->pods;
	struct net_addr *v = calloc(n, sizeof(*v));
	char text[128];

	for (unsigned i = 0; v && i < n; i++) {
		if (o->listen.n)
			snprintf(text, sizeof(text), "%s", o->listen.v[i]);
		else
			snprintf(text, sizeof(text), strchr(o->host, ':') ? "[%s]:%u" : "%s:%u", o->host,
				 o->port ? o->port + i : 0);
		if (net_addr_parse(str_of(text), &v[i])) {
			fprintf(stderr, "kvsim: %s is no ADDR:PORT\n", text);
			free(v);
			return -EINVAL;
		}
	}
	*ret = v;
	*ret_n = n;
	return v ? 0 : -ENOMEM;
}

static void say_ready(const struct pod *p)
{
	log_info("pod ready", "address", p->name, "model", p->o.model, "events", p->pub ? pub_endpoint(p->pub) : NULL,
		 "replay", p->pub ? pub_replay_endpoint(p->pub) : NULL, "topic", p->pub ? pub_topic(p->pub) : NULL);
}

static void more_files(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r))
		return;
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
}

static int serve(struct sim *s, const struct opts *o)
{
	struct net_addr *a;
	struct pod **pods;
	unsigned n;
	char err[256] = "";
	int r = addresses(o, &a, &n);

	if (r)
		return 2;
	pods = calloc(n, sizeof(*pods));
	for (unsigned i = 0; pods && i < n; i++) {
		pods[i] = pod_new(s, o, &a[i], i, err, sizeof(err));
		if (!pods[i]) {
			log_error("cannot start", "why", err);
			r = 1;
			break;
		}
		say_ready(pods[i]);
	}
	if (!r)
		r = loop_run(s->loop) ? 1 : 0;
	for (unsigned i = 0; pods && i < n; i++)
		pod_free(pods[i]);
	free(pods);
	free(a);
	return r;
}

int main(int argc, char **argv)
{
	struct loop_fd signals = { .fd = -1 };
	struct sim s = { 0 };
	struct opts o;
	char err[256];
	int r;

	opts_defaults(&o);
	if (opts_parse(&o, argc, argv, err, sizeof(err))) {
		fprintf(stderr, "kvsim: %s\n", err);
		return 2;
	}
	if (o.help) {
		opts_help(stdout);
		return 0;
	}
	if (o.version) {
		printf("kvsim %s\n", KVS_VERSION);
		return 0;
	}
	/* A sequence alone must fit, else it would wait for itself. */
	if ((uint64_t)o.kv_blocks * o.block_size < o.max_model_len)
		o.max_model_len = o.kv_blocks * o.block_size;
	if (o.tokenizer && tok_load(o.tokenizer, err, sizeof(err))) {
		log_error("cannot read the tokenizer", "why", err);
		return 1;
	}
	/* Buffers of long prompts come and go with each request: keep their pages. */
	mallopt(M_MMAP_THRESHOLD, 256 << 20);
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	more_files();
	s.loop = loop_new();
	if (!s.loop || catch_signals(s.loop, &signals) || !(s.zmq = zmq_ctx_new())) {
		log_error("cannot start", "why", strerror(errno));
		return 1;
	}
	r = serve(&s, &o);
	buf_free(&s.scratch);
	zmq_ctx_term(s.zmq);
	loop_free(s.loop);
	tok_unload();
	lift_free();
	opts_cleanup();
	return r;
}
