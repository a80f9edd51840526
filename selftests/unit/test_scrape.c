/* SPDX-License-Identifier: Apache-2.0
 * The scraper against a small HTTP server in a thread: what it asks, and what it makes of the answers.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/qsbr.h"
#include "base/time.h"
#include "scrape/scrape_int.h"

/* --- a pod: answers by path, counts connections --- */

struct server {
	int fd;
	pthread_t thread;
	atomic_bool stop;
	atomic_uint connections, requests;
	atomic_int health, metrics; /* status */
	atomic_bool huge;
	_Atomic(const char *) page;
	const char *key;
	uint16_t port;
};

static void answer(struct server *v, int fd, const char *req)
{
	const char *body = "", *auth = v->key ? strstr(req, "Authorization: Bearer ") : NULL;
	static char big[8192];
	int status = 200;
	char head[256];

	if (v->key && (!auth || strncmp(auth + 22, v->key, strlen(v->key)) != 0 || auth[22 + strlen(v->key)] != '\r'))
		status = 401;
	else if (!strncmp(req, "GET /health ", 12))
		status = v->health;
	else if (!strncmp(req, "GET /metrics ", 13) && (status = v->metrics) == 200)
		body = v->page;
	else if (!strncmp(req, "GET /v1/models ", 15))
		body = "{\"object\":\"list\",\"data\":[{\"id\":\"alias-a\",\"root\":\"org/M\",\"parent\":null},"
		       "{\"id\":\"alias-b\",\"root\":\"org/M\",\"parent\":null},"
		       "{\"id\":\"sql\",\"root\":\"/adapters/sql\",\"parent\":\"alias-a\"}]}";
	else if (!strncmp(req, "GET /version ", 13))
		body = "{\"version\":\"0.32.0\"}";
	else if (status == 200)
		status = 404;
	v->requests++;
	if (v->huge && status == 200) {
		/* Chunks without end. */
		snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
		(void)!write(fd, head, strlen(head));
		memset(big, 'a', sizeof(big));
		while (!v->stop && send(fd, "2000\r\n", 6, MSG_NOSIGNAL) > 0 &&
		       send(fd, big, sizeof(big), MSG_NOSIGNAL) > 0 && send(fd, "\r\n", 2, MSG_NOSIGNAL) > 0)
			;
		return;
	}
	snprintf(head, sizeof(head), "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n\r\n", status, strlen(body));
	(void)!send(fd, head, strlen(head), MSG_NOSIGNAL);
	(void)!send(fd, body, strlen(body), MSG_NOSIGNAL);
}

static void *serve(void *arg)
{
	struct server *v = arg;
	struct pollfd p[32] = { { .fd = v->fd, .events = POLLIN } };
	unsigned n = 1;

	while (!v->stop) {
		poll(p, n, 20);
		if (p[0].revents && n < 32) {
			p[n++] = (struct pollfd){ .fd = accept(v->fd, NULL, NULL), .events = POLLIN };
			v->connections++;
		}
		for (unsigned i = 1; i < n; i++) {
			char req[4096];
			ssize_t k;

			if (!p[i].revents)
				continue;
			k = read(p[i].fd, req, sizeof(req) - 1);
			if (k > 0) {
				req[k] = '\0';
				answer(v, p[i].fd, req);
				p[i].revents = 0;
				continue;
			}
			close(p[i].fd);
			p[i--] = p[--n];
		}
	}
	for (unsigned i = 1; i < n; i++)
		close(p[i].fd);
	return NULL;
}

static const char vllm_page[] = "process_start_time_seconds 100\n"
				"vllm:num_requests_waiting{engine=\"0\",model_name=\"alias-a\"} 3\n"
				"vllm:num_requests_running{engine=\"0\",model_name=\"alias-a\"} 2\n"
				"vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"alias-a\"} 0.5\n"
				"vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"None\"} 1\n";

/* --- the scene: one pod, its table, a loop --- */

struct scene {
	struct server v;
	struct loop *l;
	struct qsbr q;
	struct endpoints *e;
	struct pod *p;
	struct config_pool pool;
	struct config cfg;
	struct stats st;
	struct scrape *s;
	unsigned changed;
};

static void on_add(void *arg, struct pod *p)
{
	((struct scene *)arg)->p = p;
}

static void on_remove(void *arg, struct pod *p)
{
}

static void on_changed(void *arg, struct pod *p)
{
	((struct scene *)arg)->changed++;
}

static void begin(struct scene *c, const char *key)
{
	struct pod_spec spec = { .weight = 1, .ranks = 1 };
	struct net_addr a;
	socklen_t n = sizeof(a.v4);

	memset(c, 0, sizeof(*c));
	assert_int_equal(net_addr_parse(STR("127.0.0.1:0"), &a), 0);
	c->v.fd = net_listen(&a, 16);
	assert_true(c->v.fd >= 0);
	assert_int_equal(getsockname(c->v.fd, &a.sa, &n), 0);
	c->v.health = c->v.metrics = 200;
	c->v.page = vllm_page;
	c->v.key = key;
	c->v.port = net_addr_port(&a);
	assert_int_equal(pthread_create(&c->v.thread, NULL, serve, &c->v), 0);
	qsbr_init(&c->q, 1);
	c->l = loop_new();
	c->e = endpoints_new(&c->q);
	endpoints_hook(c->e, (struct endpoints_hooks){ .on_add = on_add, .on_remove = on_remove, .arg = c });
	spec.addr = a;
	assert_int_equal(endpoints_set(c->e, 0, "test", &spec, 1), 1);
	c->pool = (struct config_pool){ .metrics_port = "same",
					.metrics_path = "/metrics",
					.health_path = "/health",
					.scrape_interval = 20 * NS_PER_MS,
					.health_interval = 20 * NS_PER_MS,
					.health_timeout = NS_PER_S };
	c->cfg = (struct config){ .npools = 1, .pools = &c->pool };
	c->s = scrape_start(c->l, &c->cfg, &c->st, (struct scrape_sink){ on_changed, c });
	assert_non_null(c->s);
}

static void end(struct scene *c)
{
	scrape_stop(c->s);
	c->v.stop = true;
	pthread_join(c->v.thread, NULL);
	close(c->v.fd);
	endpoints_free(c->e);
	loop_free(c->l);
}

/* Turn until it is so, or 5 s. */
#define until(c, cond)                                      \
	do {                                                \
		uint64_t end_ = time_mono() + 5 * NS_PER_S; \
		while (!(cond) && time_mono() < end_)       \
			loop_turn((c)->l, 10);              \
		assert_true(cond);                          \
	} while (0)

static uint64_t stat(struct scene *c, enum stats_id id)
{
	return stats_sum(&c->st, 1, id);
}

static void a_pod_tells_its_load_its_models_and_its_version(void **state)
{
	struct scene c;

	begin(&c, NULL);
	scrape_add(c.s, c.p);
	until(&c, c.p->version[0] && stat(&c, STATS_SCRAPE_OK) >= 5);
	assert_string_equal(c.p->version, "0.32.0");
	assert_int_equal(c.p->engine, ENGINE_VLLM);
	assert_true(c.p->sample.waiting == 3 && c.p->sample.running == 2 && c.p->sample.kv_usage == 0.5);
	assert_int_equal(c.p->sample.block_size, 16);
	assert_int_equal(c.p->sample.num_blocks, 0);
	assert_true(c.p->sample.at_ns > 0 && c.p->sample.process_start == 100);
	assert_int_equal(c.p->nmodels, 3);
	assert_string_equal(c.p->models[1], "alias-b");
	assert_string_equal(c.p->model_root, "org/M");
	assert_string_equal(c.p->last_error, "");
	assert_true(c.changed >= 5);
	/* Connections are kept: at most one for each job. */
	assert_true(c.v.connections <= 4 && c.v.requests >= 8);
	end(&c);
}

static void two_failed_checks_take_a_pod_out_and_one_good_one_brings_it_back(void **state)
{
	struct scene c;

	begin(&c, NULL);
	c.v.health = 503;
	scrape_add(c.s, c.p);
	assert_false(c.p->down & POD_DOWN_HEALTH);
	until(&c, stat(&c, STATS_HEALTH_FAIL) == 1);
	assert_false(c.p->down & POD_DOWN_HEALTH);
	until(&c, c.p->down & POD_DOWN_HEALTH);
	assert_string_equal(c.p->last_error, "health: status 503");
	c.v.health = 200;
	until(&c, !(c.p->down & POD_DOWN_HEALTH));
	end(&c);
}

static void a_refusal_says_which_and_leaves_the_load_unknown(void **state)
{
	static const struct {
		int status;
		const char *error;
	} rows[] = {
		{ 401, "metrics: 401, needs an API key" },
		{ 403, "metrics: 403, the API key may not read it" },
		{ 404, "metrics: 404 at http://127.0.0.1:" },
	};
	struct scene c;

	begin(&c, NULL);
	scrape_add(c.s, c.p);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		c.v.metrics = 200;
		until(&c, c.p->sample.waiting == 3);
		c.v.metrics = rows[i].status;
		until(&c, isnan(c.p->sample.waiting));
		assert_true(!strncmp(c.p->last_error, rows[i].error, strlen(rows[i].error)));
		assert_int_equal(c.p->sample.block_size, 16);
	}
	end(&c);
}

static void a_key_opens_what_is_closed_without_it(void **state)
{
	char file[] = "/tmp/kvs-test-key-XXXXXX";
	int fd = mkstemp(file);
	struct scene c;

	assert_true(fd >= 0 && write(fd, "k1\n", 3) == 3);
	close(fd);
	begin(&c, "k1");
	scrape_add(c.s, c.p);
	until(&c, !strcmp(c.p->last_error, "health: 401, needs an API key"));
	assert_int_equal(c.p->nmodels, 0);
	assert_false(c.p->down & POD_DOWN_HEALTH); /* who refuses is alive */
	scrape_remove(c.s, c.p);
	c.pool.api_key_file = file;
	scrape_add(c.s, c.p);
	until(&c, c.p->nmodels == 3 && c.p->sample.waiting == 3 && !c.p->last_error[0]);
	end(&c);
	unlink(file);
}

static void garbage_and_endless_answers_are_errors(void **state)
{
	struct scene c;

	begin(&c, NULL);
	c.v.page = "<html>hello</html>";
	scrape_add(c.s, c.p);
	until(&c, !strcmp(c.p->last_error, "metrics: 200, but no metric of a known engine"));
	assert_true(isnan(c.p->sample.waiting));
	c.v.huge = true;
	until(&c, !strcmp(c.p->last_error, "metrics: the answer is larger than 4 MiB") ||
			  !strcmp(c.p->last_error, "health: the answer is larger than 4 MiB"));
	end(&c);
}

static void a_sleeping_engine_is_down_until_it_wakes(void **state)
{
	struct scene c;

	begin(&c, NULL);
	c.v.page = "vllm:num_requests_waiting 0\nvllm:engine_sleep_state{sleep_state=\"awake\"} 0.0\n";
	scrape_add(c.s, c.p);
	until(&c, c.p->down & POD_DOWN_ASLEEP);
	c.v.page = vllm_page;
	until(&c, !(c.p->down & POD_DOWN_ASLEEP));
	end(&c);
}

static void a_pod_that_is_not_there_is_down_with_the_reason(void **state)
{
	struct scene c;

	begin(&c, NULL);
	net_addr_set_port(&c.p->spec.addr, 1);
	scrape_add(c.s, c.p);
	until(&c, c.p->down & POD_DOWN_HEALTH);
	assert_non_null(strstr(c.p->last_error, "connect"));
	end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pod_tells_its_load_its_models_and_its_version),
		cmocka_unit_test(two_failed_checks_take_a_pod_out_and_one_good_one_brings_it_back),
		cmocka_unit_test(a_refusal_says_which_and_leaves_the_load_unknown),
		cmocka_unit_test(a_key_opens_what_is_closed_without_it),
		cmocka_unit_test(garbage_and_endless_answers_are_errors),
		cmocka_unit_test(a_sleeping_engine_is_down_until_it_wakes),
		cmocka_unit_test(a_pod_that_is_not_there_is_down_with_the_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
