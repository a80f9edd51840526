/* SPDX-License-Identifier: Apache-2.0
 * Sources against real files, the real resolver and, for SRV, a name server of our own on the loopback.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/time.h"
#include "discovery/discovery_int.h"

struct scene {
	struct loop *l;
	struct config cfg;
	struct config_pool pool;
	struct discovery *d;
	char dir[64];
	/* what the sink has heard */
	unsigned sets, problems, n;
	struct pod_spec specs[8];
	char problem[256], source[16];
};

static void on_set(void *arg, unsigned pool, const char *source, const struct pod_spec *specs, unsigned n)
{
	struct scene *c = arg;

	assert_true(pool == 0 && n <= 8);
	c->sets++;
	c->n = n;
	snprintf(c->source, sizeof(c->source), "%s", source);
	if (n)
		memcpy(c->specs, specs, n * sizeof(*specs));
}

static void on_problem(void *arg, unsigned pool, const char *source, const char *why)
{
	struct scene *c = arg;

	c->problems++;
	snprintf(c->problem, sizeof(c->problem), "%s", why ? why : "");
}

static void begin(struct scene *c)
{
	memset(c, 0, sizeof(*c));
	c->l = loop_new();
	strcpy(c->dir, "/tmp/kvs-test-XXXXXX");
	assert_non_null(mkdtemp(c->dir));
	c->cfg = (struct config){ .npools = 1, .pools = &c->pool };
}

static void start(struct scene *c)
{
	c->d = discovery_start(c->l, &c->cfg, (struct discovery_sink){ on_set, on_problem, c });
	assert_non_null(c->d);
}

static void end(struct scene *c)
{
	char cmd[96];

	discovery_stop(c->d);
	/* What was on its way is dropped. */
	for (int i = 0; i < 10; i++)
		loop_turn(c->l, 1);
	loop_free(c->l);
	snprintf(cmd, sizeof(cmd), "rm -r %s", c->dir);
	assert_int_equal(system(cmd), 0);
}

#define until(c, cond)                                      \
	do {                                                \
		uint64_t end_ = time_mono() + 8 * NS_PER_S; \
		while (!(cond) && time_mono() < end_)       \
			loop_turn((c)->l, 10);              \
		assert_true(cond);                          \
	} while (0)

static void path_of(struct scene *c, const char *name, char out[128])
{
	snprintf(out, 128, "%s/%s", c->dir, name);
}

static void write_file(struct scene *c, const char *name, const char *text)
{
	char path[128];
	FILE *f;

	path_of(c, name, path);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void shown(const struct pod_spec *s, const char *want)
{
	char name[NET_NAME_MAX];

	net_addr_format(&s->addr, name);
	assert_string_equal(name, want);
}

static void a_pod_s_text_becomes_a_spec_or_a_reason(void **state)
{
	static const struct {
		const char *address, *role, *name; /* NULL: refused */
	} rows[] = {
		{ "10.0.0.1:8000", NULL, "10.0.0.1:8000" },
		{ "[fd00::1]:8000", "prefill", "[fd00::1]:8000" },
		{ "localhost:8000", "decode", "127.0.0.1:8000" },
		{ "10.0.0.1", NULL, NULL },
		{ ":8000", NULL, NULL },
		{ "*:8000", NULL, NULL },
		{ "10.0.0.1:0", NULL, NULL },
		{ "10.0.0.1:65536", NULL, NULL },
		{ "[fd00::1:8000", NULL, NULL },
		{ "10.0.0.1:8000", "chief", NULL },
		{ "no-such-host.invalid:8000", NULL, NULL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct config_pod p = { .address = (char *)rows[i].address, .role = (char *)rows[i].role, .weight = 5 };
		struct pod_spec s;
		char err[200] = "";
		int r = discovery_spec(&p, &s, err, sizeof(err));

		if (!rows[i].name) {
			assert_true(r < 0 && err[0]);
			continue;
		}
		if (r)
			fail_msg("%s: %s", rows[i].address, err);
		shown(&s, rows[i].name);
		assert_true(s.weight == 5 && s.ranks == 1 && !s.events[0]);
	}
}

static void static_pods_are_there_before_start_returns(void **state)
{
	struct config_pod pods[2] = {
		{ .address = "10.0.0.1:8000", .events = "tcp://10.0.0.1:5557", .weight = 1, .ranks = 2 },
		{ .address = "no-such-host.invalid:8000", .weight = 1 },
	};
	struct scene c;

	begin(&c);
	c.pool.discovery = DISC_STATIC;
	c.pool.pods = pods;
	c.pool.npods = 2;
	start(&c);
	assert_true(c.sets == 1 && c.n == 1);
	assert_string_equal(c.source, "static");
	assert_string_equal(c.specs[0].events, "tcp://10.0.0.1:5557");
	assert_int_equal(c.specs[0].ranks, 2);
	assert_non_null(strstr(c.problem, "no-such-host.invalid"));
	end(&c);
}

static void a_file_is_followed_through_rewrites_renames_and_links(void **state)
{
	char a[128], b[128], link_[128];
	struct scene c;

	begin(&c);
	path_of(&c, "pods.yaml", a);
	c.pool.discovery = DISC_FILE;
	c.pool.file = a;
	start(&c);
	assert_true(c.sets == 0 && strstr(c.problem, "No such file"));
	write_file(&c, "pods.yaml", "- address: \"10.0.0.1:8000\"\n");
	until(&c, c.sets == 1 && !c.problem[0]);
	shown(&c.specs[0], "10.0.0.1:8000");
	/* A rename over it. */
	write_file(&c, "new", "- address: \"10.0.0.2:8000\"\n- address: \"10.0.0.3:8000\"\n");
	path_of(&c, "new", b);
	assert_int_equal(rename(b, a), 0);
	until(&c, c.sets == 2 && c.n == 2);
	/* Something else in the directory. */
	write_file(&c, "other", "x");
	for (int i = 0; i < 15; i++)
		loop_turn(c.l, 10);
	assert_int_equal(c.sets, 2);
	/* Broken: the last set stands. */
	write_file(&c, "pods.yaml", "- address: \"10.0.0.2:8000\"\n  role: chief\n");
	until(&c, c.problem[0]);
	assert_non_null(strstr(c.problem, "pods.yaml:2"));
	assert_int_equal(c.sets, 2);
	/* As a ConfigMap is mounted: the file is a link into a directory that is a link which is swapped. */
	path_of(&c, "v1", b);
	assert_int_equal(mkdir(b, 0700), 0);
	path_of(&c, "v2", b);
	assert_int_equal(mkdir(b, 0700), 0);
	write_file(&c, "v1/pods.yaml", "- address: \"10.0.1.1:8000\"\n");
	write_file(&c, "v2/pods.yaml", "- address: \"10.0.1.2:8000\"\n");
	path_of(&c, "..data", link_);
	assert_int_equal(symlink("v1", link_), 0);
	unlink(a);
	assert_int_equal(symlink("..data/pods.yaml", a), 0);
	until(&c, c.n == 1 && !c.problem[0]);
	shown(&c.specs[0], "10.0.1.1:8000");
	path_of(&c, "..tmp", b);
	assert_int_equal(symlink("v2", b), 0);
	assert_int_equal(rename(b, link_), 0);
	until(&c, c.sets == 4);
	shown(&c.specs[0], "10.0.1.2:8000");
	end(&c);
}

static void names_in_a_file_are_looked_up_beside_the_loop(void **state)
{
	char a[128];
	struct scene c;

	begin(&c);
	path_of(&c, "pods.yaml", a);
	write_file(&c, "pods.yaml", "- address: \"localhost:8000\"\n- address: \"no-such-host.invalid:1\"\n");
	c.pool.discovery = DISC_FILE;
	c.pool.file = a;
	start(&c);
	until(&c, c.sets == 1 && c.problem[0]);
	assert_int_equal(c.n, 1);
	shown(&c.specs[0], "127.0.0.1:8000");
	assert_non_null(strstr(c.problem, "no-such-host.invalid"));
	write_file(&c, "pods.yaml", "- address: \"10.0.0.9:8000\"\n");
	until(&c, c.sets >= 2 && !c.problem[0]);
	shown(&c.specs[0], "10.0.0.9:8000");
	end(&c);
}

static void a_star_is_the_pod_s_own_address(void **state)
{
	static const struct {
		const char *address, *events, *want;
	} rows[] = {
		{ "10.0.0.1:8000", "tcp://*:5557", "tcp://10.0.0.1:5557" },
		{ "[fd00::1]:8000", "tcp://*:5557", "tcp://[fd00::1]:5557" },
		{ "localhost:8000", "tcp://*:5557", "tcp://127.0.0.1:5557" },
		{ "10.0.0.1:8000", "tcp://10.0.0.2:5557", "tcp://10.0.0.2:5557" },
		{ "10.0.0.1:8000", "http://*", "http://10.0.0.1:8000/kv_cache_events" },
		{ "[fd00::1]:8000", "http://*", "http://[fd00::1]:8000/kv_cache_events" },
		{ "10.0.0.1:8000", "http://*/v2/events", "http://10.0.0.1:8000/v2/events" },
		{ "10.0.0.1:8000", "http://*:9000", "http://10.0.0.1:9000/kv_cache_events" },
		{ "10.0.0.1:8000", "http://*:9000/e", "http://10.0.0.1:9000/e" },
		{ "10.0.0.1:8000", "http://side:9000", "http://side:9000/kv_cache_events" },
		{ "10.0.0.1:8000", "http://side:9000/e", "http://side:9000/e" },
		{ "10.0.0.1:8000", NULL, "" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct config_pod p = { .address = (char *)rows[i].address, .events = (char *)rows[i].events };
		char err[200] = "";
		struct pod_spec s;

		assert_int_equal(discovery_spec(&p, &s, err, sizeof(err)), 0);
		assert_string_equal(s.events, rows[i].want);
	}
}

static void a_dns_name_gives_its_addresses(void **state)
{
	struct scene c;

	begin(&c);
	c.pool.discovery = DISC_DNS;
	c.pool.dns_name = "localhost";
	c.pool.dns_port = "8000";
	c.pool.dns_interval = NS_PER_S;
	c.pool.dns_events = "tcp://*:5557";
	c.pool.dns_replay = "tcp://*:5558";
	c.pool.dns_ranks = 2;
	start(&c);
	until(&c, c.sets == 1);
	assert_int_equal(c.n, 1);
	shown(&c.specs[0], "127.0.0.1:8000");
	assert_true(c.specs[0].weight == 1 && c.specs[0].ranks == 2);
	assert_string_equal(c.specs[0].events, "tcp://127.0.0.1:5557");
	assert_string_equal(c.specs[0].replay, "tcp://127.0.0.1:5558");
	until(&c, c.sets == 2); /* and again */
	end(&c);
}

static void a_name_that_is_not_there_is_a_problem_and_no_empty_set(void **state)
{
	struct scene c;

	begin(&c);
	c.pool.discovery = DISC_DNS;
	c.pool.dns_name = "no-such-host.invalid";
	c.pool.dns_port = "8000";
	c.pool.dns_interval = NS_PER_S;
	start(&c);
	until(&c, c.problem[0]);
	assert_int_equal(c.sets, 0);
	assert_int_equal(c.problems, 1);
	end(&c);
}

/* --- a name server that knows _http._tcp.pods.test --- */

struct server {
	int fd;
	pthread_t thread;
	int mode; /* 0: two records, 1: no such name, 2: garbage */
};

static size_t srv_record(uint8_t *p, uint16_t port)
{
	/* Name: pointer to the question; SRV, IN, TTL 7; priority 0, weight 0, port, "localhost". */
	static const uint8_t head[] = { 0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 7, 0, 17, 0, 0, 0, 0 };

	memcpy(p, head, sizeof(head));
	p[16] = (uint8_t)(port >> 8);
	p[17] = (uint8_t)port;
	memcpy(p + 18, "\x09localhost", 11);
	return 29;
}

static void *serve(void *arg)
{
	struct server *v = arg;
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	uint8_t b[512];
	ssize_t n = recvfrom(v->fd, b, sizeof(b), 0, (struct sockaddr *)&from, &len);
	size_t end = 12;

	if (n < 12)
		return NULL;
	while (end < (size_t)n && b[end])
		end += b[end] + 1u;
	end += 5;
	b[2] = 0x84; /* an authoritative answer */
	b[3] = v->mode == 1 ? 3 : 0;
	b[6] = 0;
	b[7] = v->mode == 0 ? 2 : v->mode == 2 ? 9 : 0;
	memset(b + 8, 0, 4);
	if (v->mode == 0) {
		end += srv_record(b + end, 8000);
		end += srv_record(b + end, 8001);
	}
	sendto(v->fd, b, end, 0, (struct sockaddr *)&from, len);
	return NULL;
}

static void srv_records_bring_their_ports(void **state)
{
	static const struct {
		int mode, n;
		const char *why;
	} rows[] = { { 0, 2, NULL }, { 1, -ENOENT, "no such name" }, { 2, -EBADMSG, "malformed" } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct server v = { .mode = rows[i].mode, .fd = socket(AF_INET, SOCK_DGRAM, 0) };
		struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		struct __res_state st = { 0 };
		struct net_addr found[4];
		socklen_t len = sizeof(a);
		uint32_t ttl = 0;
		char err[256] = "";
		int n;

		assert_int_equal(bind(v.fd, (struct sockaddr *)&a, sizeof(a)), 0);
		assert_int_equal(getsockname(v.fd, (struct sockaddr *)&a, &len), 0);
		assert_int_equal(pthread_create(&v.thread, NULL, serve, &v), 0);
		assert_int_equal(res_ninit(&st), 0);
		st.nscount = 1;
		st.nsaddr_list[0] = a;
		st.retrans = 1;
		st.retry = 1;
		st.options &= ~(unsigned long)(RES_DNSRCH | RES_DEFNAMES);
		n = dns_srv(&st, "_http._tcp", "pods.test", found, 4, &ttl, err, sizeof(err));
		res_nclose(&st);
		pthread_join(v.thread, NULL);
		close(v.fd);
		if (n != rows[i].n)
			fail_msg("mode %d: %d, %s", rows[i].mode, n, err);
		if (n > 0) {
			assert_int_equal(net_addr_port(&found[0]), 8000);
			assert_int_equal(net_addr_port(&found[1]), 8001);
			assert_int_equal(ttl, 7);
		} else {
			assert_non_null(strstr(err, rows[i].why));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pod_s_text_becomes_a_spec_or_a_reason),
		cmocka_unit_test(static_pods_are_there_before_start_returns),
		cmocka_unit_test(a_file_is_followed_through_rewrites_renames_and_links),
		cmocka_unit_test(names_in_a_file_are_looked_up_beside_the_loop),
		cmocka_unit_test(a_star_is_the_pod_s_own_address),
		cmocka_unit_test(a_dns_name_gives_its_addresses),
		cmocka_unit_test(a_name_that_is_not_there_is_a_problem_and_no_empty_set),
		cmocka_unit_test(srv_records_bring_their_ports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
