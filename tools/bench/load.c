/* SPDX-License-Identifier: Apache-2.0
 * The client. Requests have due times that do not depend on the answers (a Poisson process, or even steps for ramps);
 * latency counts from the due time, and what is unfinished at the end counts with its age.
 *
 * A run is: ramp, settle, window, drain. Only what falls into the window counts. For pooled kinds (small, long) the
 * window begins after the settling time and takes the requests due in it; for streams when all streams have begun and
 * it takes the events read in it; for hold and idle it is the moment when all stand. A stall is a window in which
 * nothing is read. Short is small streams, churn the same with a connection for each; length and chunked are one long
 * answer.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/rand.h"
#include "base/time.h"
#include "bench.h"

#define PREFIX_MAX  16
#define TARGET_MAX  16
#define RAMP_LIMIT  (20 * NS_PER_S)
#define DRAIN_LIMIT (5 * NS_PER_S)

enum kind { SMALL, LONG, STREAM, HOLD, IDLE, SHORT, CHURN, STALL, LENGTH, CHUNKED };
static const char *const kinds[] = { "small", "long",  "stream", "hold",   "idle",
				     "short", "churn", "stall",	 "length", "chunked" };

enum phase { RAMP, SETTLE, WINDOW, DRAIN, OVER };
enum conn_state { CLOSED, FREE, SENDING, WAITING, KEPT };

struct sample {
	int64_t *v;
	size_t n, cap;
};

struct conn {
	int fd;
	enum conn_state state;
	bool out_armed, begun;
	uint32_t target, events;
	uint64_t due, wrote;
	size_t sent, total;
	struct iovec body[3];
	char head[768];
	struct reply r;
	int64_t t_first, t_last; /* the pod's stamps */
	bool ended;		 /* [DONE] came */
};

static struct {
	enum kind kind;
	struct sockaddr_storage target[TARGET_MAX];
	const char *host[TARGET_MAX];
	socklen_t target_len;
	uint32_t n_targets, n_conns;
	double rate, settle, dur;
	uint32_t chunks, chunk_rate, chunk_size;
	size_t body;
	uint32_t n_prefixes;
	uint64_t seed;
} opt = { .n_conns = 64,
	  .rate = 1000,
	  .settle = 0.5,
	  .dur = 3,
	  .chunks = 900,
	  .chunk_rate = 300,
	  .chunk_size = 250,
	  .body = 1024,
	  .n_prefixes = 8,
	  .seed = 1 };

static struct watch watch;
static struct conn *conns;
static uint32_t *free_list, n_free;
static int ep;
static struct rng rng;
static enum phase phase;
static uint64_t t_start, t_beg, t_end, next_due;
static struct snap at_base, at_beg, at_end;

/* Arrivals that wait for a connection: a queue that never wraps. */
static uint64_t *queue;
static size_t q_head, q_tail, q_cap;

static char *prefix[PREFIX_MAX], **tails;
static size_t prefix_len, tail_len, n_tails;

static uint32_t issued, finished, begun, errors, in_window, unfinished;
static int bad_status;
static uint64_t events_window, body_bytes;
static struct sample lat, gap, first, last, ttft;
static char event[EVENT_MAX];
static size_t event_n;
static char buf[1 << 18];
static uint64_t now;

static void sample_add(struct sample *s, int64_t v)
{
	if (s->n == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 4096;
		s->v = reallocarray(s->v, s->cap, sizeof(*s->v));
		if (!s->v)
			abort();
	}
	s->v[s->n++] = v;
}

static int sample_cmp(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void sample_print(const char *name, struct sample *s)
{
	static const struct {
		const char *name;
		double q;
	} qs[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p999", 0.999 }, { "max", 1 } };

	qsort(s->v, s->n, sizeof(*s->v), sample_cmp);
	printf(",\"%s\":{\"n\":%zu", name, s->n);
	for (size_t i = 0; s->n && i < sizeof(qs) / sizeof(qs[0]); i++) {
		size_t at = (size_t)ceil(qs[i].q * (double)s->n);

		printf(",\"%s\":%" PRId64, qs[i].name, s->v[at ? at - 1 : 0]);
	}
	printf("}");
}

static bool pooled(void)
{
	return opt.kind == SMALL || opt.kind == LONG || opt.kind == SHORT || opt.kind == CHURN;
}

static bool streams(void)
{
	return opt.kind == STREAM || opt.kind == HOLD || opt.kind == SHORT || opt.kind == CHURN || opt.kind == STALL;
}

static bool pieces(void)
{
	return opt.kind == LENGTH || opt.kind == CHUNKED;
}

/* --- connections --- */

static void conn_arm(struct conn *c, bool out)
{
	struct epoll_event e = { .events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c };

	if (c->out_armed != out)
		epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
	c->out_armed = out;
}

static int conn_open(struct conn *c)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLOUT, .data.ptr = c };
	int one = 1, little = 16384;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -errno;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (opt.kind == STALL)
		setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof(little));
	if (connect(c->fd, (struct sockaddr *)&opt.target[c->target], opt.target_len) && errno != EINPROGRESS) {
		close(c->fd);
		return -errno;
	}
	c->out_armed = true;
	return epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
}

static void conn_close(struct conn *c)
{
	if (c->state != CLOSED)
		close(c->fd);
	c->state = CLOSED;
}

static void conn_free_again(struct conn *c)
{
	free_list[n_free++] = (uint32_t)(c - conns);
}

static void conn_fail(struct conn *c)
{
	errors++;
	if (c->r.status >= 400)
		bad_status = c->r.status;
	conn_close(c);
	if (pooled())
		conn_free_again(c);
}

/* --- a request --- */

static void body_set(struct conn *c, uint32_t id)
{
	static const char chat[] =
		"{\"model\":\"m\",\"max_tokens\":16,\"messages\":[{\"role\":\"system\",\"content\":\"";
	static const char completion[] = "{\"model\":\"m\",\"max_tokens\":16,\"prompt\":\"";
	const char *head = opt.kind == LONG ? completion : chat;

	c->body[0] = (struct iovec){ (void *)head, strlen(head) };
	c->body[1] = (struct iovec){ prefix[id % opt.n_prefixes], prefix_len };
	c->body[2] = (struct iovec){ tails[id % n_tails], tail_len };
}

static void request_begin(struct conn *c, uint64_t due)
{
	char spec[96] = "";
	size_t body;
	int n;

	body_set(c, issued++);
	c->due = due;
	c->events = 0;
	c->begun = c->ended = false;
	c->t_first = c->t_last = 0;
	reply_init(&c->r);
	body = c->body[0].iov_len + c->body[1].iov_len + c->body[2].iov_len;
	if (streams())
		snprintf(spec, sizeof(spec), "X-Bench: stream chunks=%u rate=%u size=%u\r\n", opt.chunks,
			 opt.chunk_rate, opt.chunk_size);
	else if (pieces())
		snprintf(spec, sizeof(spec), "X-Bench: %s pieces=%u\r\n", kinds[opt.kind], opt.chunks);
	n = snprintf(c->head, sizeof(c->head),
		     "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: OpenAI/Python 1.99.1\r\nAccept: application/json\r\n"
		     "Content-Type: application/json\r\nAuthorization: Bearer sk-0123456789abcdef0123456789abcdef\r\n"
		     "X-Stainless-Lang: python\r\nX-Stainless-Runtime: CPython\r\n%sContent-Length: %zu\r\n\r\n",
		     opt.kind == LONG ? "/v1/completions" : "/v1/chat/completions", opt.host[c->target], spec, body);
	c->sent = 0;
	c->total = (size_t)n + body;
}

static void request_send(struct conn *c)
{
	struct iovec iov[4] = { { c->head, 0 }, c->body[0], c->body[1], c->body[2] };
	size_t skip = c->sent;
	int i = 0;
	ssize_t n;

	iov[0].iov_len = c->total - iov[1].iov_len - iov[2].iov_len - iov[3].iov_len;
	while (i < 4 && skip >= iov[i].iov_len)
		skip -= iov[i++].iov_len;
	if (i < 4) {
		iov[i].iov_base = (char *)iov[i].iov_base + skip;
		iov[i].iov_len -= skip;
		n = writev(c->fd, iov + i, 4 - i);
		if (n < 0 && errno != EAGAIN) {
			conn_fail(c);
			return;
		}
		c->sent += n > 0 ? (size_t)n : 0;
	}
	if (c->sent < c->total) {
		c->state = SENDING;
		conn_arm(c, true);
		return;
	}
	c->wrote = time_mono();
	c->state = WAITING;
	conn_arm(c, false);
}

static int64_t number_after(const char *line, size_t n, const char *key)
{
	const char *p = memmem(line, n, key, strlen(key));

	return p ? strtoll(p + strlen(key), NULL, 10) : 0;
}

static void reply_line(void *arg, const char *line, size_t n)
{
	struct conn *c = arg;
	int64_t t;

	if (!c->begun && c->r.status == 200) {
		c->begun = true;
		begun++;
	}
	if (opt.kind == SMALL || opt.kind == IDLE || pieces() || !n)
		return;
	if (opt.kind == LONG) {
		c->t_first = number_after(line, n, "\"t_first\":");
		c->t_last = number_after(line, n, "\"t_last\":");
		return;
	}
	t = n > EVENT_STAMP_AT + EVENT_STAMP ? number_after(line, EVENT_STAMP_AT + EVENT_STAMP, "{\"t\":\"") : 0;
	if (t) {
		if (n != event_n || memcmp(line, event, EVENT_STAMP_AT) != 0 ||
		    memcmp(line + EVENT_STAMP_AT + EVENT_STAMP, event + EVENT_STAMP_AT + EVENT_STAMP,
			   n - EVENT_STAMP_AT - EVENT_STAMP) != 0)
			return; /* one event too few */
		if (!c->events++)
			sample_add(&ttft, (int64_t)(now - c->due));
		if (phase == WINDOW) {
			events_window++;
			sample_add(&gap, (int64_t)now - t);
		}
	} else if (n >= 12 && !memcmp(line, "data: [DONE]", 12)) {
		c->ended = true;
	}
}

static void request_done(struct conn *c)
{
	body_bytes += c->r.body;
	if (c->r.status != 200 || (streams() && (!c->ended || c->events != opt.chunks)) ||
	    (pieces() && c->r.body != (uint64_t)opt.chunks * opt.chunk_size)) {
		conn_fail(c);
		return;
	}
	finished++;
	if (phase == WINDOW)
		in_window++;
	if (pieces() || (pooled() && c->due >= t_beg && c->due < t_end)) {
		sample_add(&lat, (int64_t)(now - c->due));
		if (c->t_last) {
			sample_add(&first, c->t_first - (int64_t)c->wrote);
			sample_add(&last, c->t_last - (int64_t)c->wrote);
		}
	}
	c->state = pooled() ? FREE : KEPT;
	if (c->r.close || opt.kind == CHURN)
		conn_close(c);
	if (pooled())
		conn_free_again(c);
}

static void conn_read(struct conn *c)
{
	ssize_t n = recv(c->fd, buf, sizeof(buf), 0);
	int err = n < 0 ? errno : 0;

	now = time_mono();
	if (err == EAGAIN)
		return;
	if (n <= 0) {
		/* A pooled connection that was closed while idle is opened again by its next request. */
		if (c->state == FREE)
			conn_close(c);
		else
			conn_fail(c);
		return;
	}
	if ((c->state != WAITING && c->state != SENDING) || reply_feed(&c->r, buf, (size_t)n, reply_line, c)) {
		conn_fail(c);
		return;
	}
	if (reply_done(&c->r))
		request_done(c);
}

static void conn_event(struct conn *c, uint32_t events)
{
	if (c->state == SENDING && (events & EPOLLOUT))
		request_send(c);
	else if (c->state == FREE && (events & EPOLLOUT))
		conn_arm(c, false);
	if (c->state != CLOSED && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		conn_read(c);
}

/* --- the clock's side --- */

static void arrivals(void)
{
	double step;

	while (phase < DRAIN && next_due <= now) {
		if (!pooled() && q_tail == opt.n_conns)
			return;
		if (q_tail == q_cap) {
			q_cap = q_cap ? q_cap * 2 : 65536;
			queue = reallocarray(queue, q_cap, sizeof(*queue));
			if (!queue)
				abort();
		}
		queue[q_tail++] = next_due;
		step = pooled() ? -log(1 - rng_unit(&rng)) : 1;
		next_due += (uint64_t)(step * 1e9 / opt.rate);
	}
}

static void dispatch(void)
{
	while (q_head < q_tail && n_free) {
		struct conn *c = &conns[free_list[--n_free]];

		if (c->state == CLOSED && conn_open(c)) {
			errors++;
			q_head++;
			if (pooled())
				conn_free_again(c);
			continue;
		}
		request_begin(c, queue[q_head++]);
		request_send(c);
	}
}

static void phase_step(void)
{
	bool ready = pooled() || (opt.kind == IDLE ? finished : begun) + errors >= opt.n_conns;

	if (phase == RAMP && (ready || now - t_start > RAMP_LIMIT)) {
		phase = SETTLE;
		t_beg = now + (uint64_t)(opt.settle * 1e9);
		t_end = t_beg + (uint64_t)(opt.dur * 1e9);
	}
	if (phase == SETTLE && now >= t_beg) {
		watch_snap(&watch, &at_beg);
		phase = WINDOW;
	}
	if (phase == WINDOW && now >= t_end) {
		watch_snap(&watch, &at_end);
		phase = DRAIN;
		t_end = pooled() ? t_end : now;
	}
	if (phase == DRAIN) {
		uint64_t limit = DRAIN_LIMIT;

		if (streams())
			limit += (uint64_t)opt.chunks * NS_PER_S / opt.chunk_rate;
		if (pieces())
			limit += RAMP_LIMIT;
		if (q_head == q_tail && finished + errors >= issued)
			phase = OVER;
		else if (now > t_end + limit || opt.kind == IDLE)
			phase = OVER;
	}
}

static uint64_t next_event(void)
{
	uint64_t t = now + 100 * NS_PER_MS;

	if (phase < DRAIN && next_due < t && (pooled() || q_tail < opt.n_conns))
		t = next_due;
	if (phase == SETTLE && t_beg < t)
		t = t_beg;
	if (phase == WINDOW && t_end < t)
		t = t_end;
	return t > now ? t - now : 0;
}

static void run(void)
{
	struct epoll_event ev[256];
	struct timespec wait;
	uint64_t ns;
	int n;

	watch_snap(&watch, &at_base);
	t_start = now = time_mono();
	next_due = now + 50 * NS_PER_MS;
	while (phase != OVER) {
		arrivals();
		dispatch();
		phase_step();
		ns = next_event();
		wait = (struct timespec){ .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) };
		n = 0;
		if (opt.kind == STALL && phase == WINDOW)
			nanosleep(&wait, NULL);
		else
			n = epoll_pwait2(ep, ev, 256, &wait, NULL);
		now = time_mono();
		for (int i = 0; i < n; i++)
			conn_event(ev[i].data.ptr, ev[i].events);
		now = time_mono();
	}
	for (uint32_t i = 0; i < opt.n_conns; i++) {
		struct conn *c = &conns[i];

		if (c->state != SENDING && c->state != WAITING)
			continue;
		unfinished++;
		if (pooled() && c->due >= t_beg && c->due < t_end)
			sample_add(&lat, (int64_t)(now - c->due));
	}
	for (; pooled() && q_head < q_tail; q_head++, unfinished++)
		if (queue[q_head] >= t_beg && queue[q_head] < t_end)
			sample_add(&lat, (int64_t)(now - queue[q_head]));
}

static void report(void)
{
	printf("{\"kind\":\"%s\",\"seconds\":%.4f,\"issued\":%u,\"complete\":%u,\"errors\":%u,\"unfinished\":%u,"
	       "\"bad_status\":%d,\"done\":%u,\"events\":%" PRIu64 ",\"begun\":%u",
	       kinds[opt.kind], (double)(at_end.t - at_beg.t) / 1e9, issued, finished, errors, unfinished, bad_status,
	       in_window, events_window, begun);
	printf(",\"body_bytes\":%" PRIu64 ",\"gw_wakes\":%" PRIu64, body_bytes, at_end.wakes - at_beg.wakes);
	printf(",\"gw_ns\":%" PRIu64 ",\"own_ns\":%" PRIu64 ",\"busy_ns\":%" PRIu64 ",\"taken_ns\":%" PRIu64,
	       at_end.gw - at_beg.gw, at_end.own - at_beg.own, at_end.busy - at_beg.busy, at_end.taken - at_beg.taken);
	printf(",\"busy_exact\":%d,\"rss_base\":%" PRIu64 ",\"rss\":%" PRIu64, at_end.busy_exact, at_base.rss,
	       at_beg.rss);
	sample_print("latency", &lat);
	sample_print("chunk", &gap);
	sample_print("first", &first);
	sample_print("last", &last);
	sample_print("ttft", &ttft);
	printf("}\n");
}

/* --- setting up --- */

/* Nine tenths of a long prompt are one of a few known texts; the rest of each is its own. */
static int bodies_make(void)
{
	bool is_long = opt.kind == LONG;
	size_t frame = is_long ? 48 : 128;
	size_t text = opt.body > frame + 64 ? opt.body - frame : 64;
	const char *end = is_long ? "\"}" : "\"}]}";
	const char *mid = is_long ? "" : "\"},{\"role\":\"user\",\"content\":\"";
	char *t;

	prefix_len = is_long ? text / 10 * 9 : text / 2;
	tail_len = text - prefix_len;
	n_tails = is_long ? (size_t)((opt.settle + opt.dur) * opt.rate * 1.5) + 64 : 4096;
	if (opt.kind == IDLE || opt.kind == HOLD || opt.kind == SHORT || opt.kind == CHURN)
		n_tails = 8; /* what a connection holds is asked for, not what an index of prompts does */
	tails = calloc(n_tails, sizeof(*tails));
	for (uint32_t i = 0; i < opt.n_prefixes; i++) {
		prefix[i] = prompt_text(mix64(i), prefix_len);
		if (!prefix[i])
			return -ENOMEM;
	}
	for (size_t i = 0; tails && i < n_tails; i++) {
		t = prompt_text(mix64(opt.seed * 1000003 + i) | 1, tail_len);
		if (!t || asprintf(&tails[i], "%s%s%s", mid, t, end) < 0)
			return -ENOMEM;
		free(t);
	}
	tail_len += strlen(mid) + strlen(end);
	return tails ? 0 : -ENOMEM;
}

static int conns_make(void)
{
	conns = calloc(opt.n_conns, sizeof(*conns));
	free_list = calloc(opt.n_conns, sizeof(*free_list));
	if (!conns || !free_list)
		return -ENOMEM;
	ep = epoll_create1(EPOLL_CLOEXEC);
	for (uint32_t i = opt.n_conns; i-- > 0;) {
		conns[i].target = i % opt.n_targets;
		if (pooled() && opt.kind != CHURN) {
			if (conn_open(&conns[i]))
				return -errno;
			conns[i].state = FREE;
		}
		conn_free_again(&conns[i]);
	}
	return 0;
}

static int targets_parse(char *list)
{
	char *save = NULL;

	for (char *s = strtok_r(list, ",", &save); s; s = strtok_r(NULL, ",", &save)) {
		if (opt.n_targets == TARGET_MAX || addr_parse(s, &opt.target[opt.n_targets], &opt.target_len))
			return -EINVAL;
		opt.host[opt.n_targets++] = s;
	}
	return opt.n_targets ? 0 : -EINVAL;
}

static int kind_parse(const char *s)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (!strcmp(s, kinds[i])) {
			opt.kind = (enum kind)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int option(int o, char *arg)
{
	switch (o) {
	case 'k':
		return kind_parse(arg);
	case 't':
		return targets_parse(arg);
	case 'c':
		opt.n_conns = (uint32_t)strtoul(arg, NULL, 10);
		return opt.n_conns ? 0 : -EINVAL;
	case 'r':
		opt.rate = strtod(arg, NULL);
		return opt.rate > 0 ? 0 : -EINVAL;
	case 's':
		opt.settle = strtod(arg, NULL);
		return 0;
	case 'd':
		opt.dur = strtod(arg, NULL);
		return 0;
	case 'e':
		return sscanf(arg, "%u,%u,%u", &opt.chunks, &opt.chunk_rate, &opt.chunk_size) == 3 ? 0 : -EINVAL;
	case 'b':
		opt.body = strtoul(arg, NULL, 10);
		return 0;
	case 'S':
		opt.seed = strtoull(arg, NULL, 10);
		return 0;
	case 'g':
		return watch_pids(arg, watch.gw, &watch.n_gw);
	case 'o':
		return watch_pids(arg, watch.own, &watch.n_own);
	case 'i':
		return watch_soak(&watch, arg);
	default:
		return -EINVAL;
	}
}

int load_main(int argc, char **argv)
{
	int o;

	while ((o = getopt(argc, argv, "k:t:c:r:s:d:e:b:S:g:o:i:")) != -1) {
		if (option(o, optarg)) {
			fprintf(stderr,
				"usage: kvbench load -k small|long|stream|hold|idle|short|churn|stall|length|chunked\n"
				"  -t ADDR:PORT[,...]\n"
				"  -c CONNS -r REQUESTS_PER_S -s SETTLE_S -d WINDOW_S -b BODY_BYTES -S SEED\n"
				"  -e CHUNKS,PER_S,BYTES -g GATEWAY_PIDS -o OTHER_PIDS -i SOAK_FILE\n");
			return 2;
		}
	}
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_TIMERSLACK, 1UL);
	rng.s = opt.seed;
	event_n = event_build(event, opt.chunk_size < EVENT_MAX ? opt.chunk_size : EVENT_MAX) - 2; /* a line of it */
	if (!opt.n_targets || bodies_make() || conns_make()) {
		fprintf(stderr, "kvbench: cannot set up the load: %s\n", opt.n_targets ? strerror(errno) : "no -t");
		return 1;
	}
	run();
	report();
	return 0;
}
