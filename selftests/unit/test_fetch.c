/* SPDX-License-Identifier: Apache-2.0
 * Questions to a server that answers each with the bytes it is told, in the pieces it is told.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/time.h"
#include "fetch/fetch.h"

/* One connection at a time. An answer's '|' is a pause, its '!' at the end a close, its '?' silence. */
struct server {
	int fd;
	pthread_t thread;
	atomic_bool stop;
	atomic_uint connections, requests;
	_Atomic(const char *) answer;
	char request[2048]; /* the last one */
	uint16_t port;
};

static void give(int fd, const char *text)
{
	while (*text && *text != '!' && *text != '?') {
		size_t n = strcspn(text, "|!?");

		(void)!send(fd, text, n, MSG_NOSIGNAL);
		text += n;
		if (*text == '|') {
			usleep(3000);
			text++;
		}
	}
}

static void *serve(void *arg)
{
	struct server *v = arg;
	struct pollfd p[2] = { { .fd = v->fd, .events = POLLIN }, { .fd = -1, .events = POLLIN } };

	while (!v->stop) {
		const char *text;
		ssize_t k;

		if (poll(p, 2, 5) <= 0)
			continue;
		text = v->answer; /* set before the request, whose place is read no more */
		if (p[0].revents && p[1].fd < 0) {
			p[1].fd = accept(v->fd, NULL, NULL);
			v->connections++;
			continue;
		}
		if (p[1].fd < 0 || !p[1].revents)
			continue;
		k = read(p[1].fd, v->request, sizeof(v->request) - 1);
		if (k > 0) {
			v->request[k] = '\0';
			v->requests++;
			give(p[1].fd, text);
		}
		if (k <= 0 || strchr(text, '!')) {
			close(p[1].fd);
			p[1].fd = -1;
		}
	}
	if (p[1].fd >= 0)
		close(p[1].fd);
	return NULL;
}

struct scene {
	struct server v;
	struct loop *l;
	struct fetch *f;
	struct fetch_ask a;
	unsigned done;
	char error[256], body[256];
	unsigned status;
};

static void on_done(struct fetch_ask *a)
{
	struct scene *c = container_of(a, struct scene, a);

	c->done++;
	c->status = a->status;
	str_copy(c->error, sizeof(c->error), a->error);
	snprintf(c->body, sizeof(c->body), "%.*s", (int)buf_len(&a->body), a->body.mem ? buf_data(&a->body) : "");
}

static void begin(struct scene *c)
{
	struct net_addr a;
	socklen_t n = sizeof(a.v4);

	memset(c, 0, sizeof(*c));
	assert_int_equal(net_addr_parse(STR("127.0.0.1:0"), &a), 0);
	c->v.fd = net_listen(&a, 16);
	assert_true(c->v.fd >= 0);
	assert_int_equal(getsockname(c->v.fd, &a.sa, &n), 0);
	c->v.port = net_addr_port(&a);
	c->v.answer = "";
	assert_int_equal(pthread_create(&c->v.thread, NULL, serve, &c->v), 0);
	c->l = loop_new();
	c->f = fetch_new(c->l);
	assert_non_null(c->f);
	fetch_init(&c->a, c->f, 1u << 20, on_done);
}

static void end(struct scene *c)
{
	fetch_fini(&c->a);
	fetch_free(c->f);
	loop_free(c->l);
	c->v.stop = true;
	pthread_join(c->v.thread, NULL);
	close(c->v.fd);
}

static void ask_host(struct scene *c, const char *method, const char *host, const char *key, const char *answer,
		     unsigned timeout_ms)
{
	unsigned before = c->done;
	uint64_t until = time_mono() + 5 * NS_PER_S;
	char url[128];

	snprintf(url, sizeof(url), "http://%s:%u/a?b", host, c->v.port);
	c->v.answer = answer;
	assert_int_equal(fetch_go(&c->a, method, url, key, timeout_ms * NS_PER_MS), 0);
	assert_int_equal(c->done, before);
	assert_int_equal(fetch_go(&c->a, method, url, key, NS_PER_S), -EBUSY);
	while (c->done == before && time_mono() < until)
		loop_turn(c->l, 10);
	assert_int_equal(c->done, before + 1);
}

static void ask(struct scene *c, const char *answer)
{
	ask_host(c, "GET", "127.0.0.1", NULL, answer, 2000);
}

#define INTERIM "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Go\r\n\r\nHTTP/1.1 103 On\r\n\r\n"
#define OK	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

static void an_answer_is_whole_whatever_its_framing_and_its_pieces(void **state)
{
	static const struct {
		const char *answer, *body;
		unsigned status;
	} rows[] = {
		{ OK, "hello", 200 },
		{ "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "", 404 },
		{ "HTTP/1.1 204 No\r\n\r\n", "", 204 },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "hello",
		  200 },
		{ "HTT|P/1.1 200 OK\r\nTransf|er-Encoding: chunked\r\n\r|\n3\r\nh|el\r\n2\r\nlo\r|\n0\r\n\r\n", "hello",
		  200 },
		{ "HTTP/1.1 100 Continue\r\n\r\n" OK, "hello", 200 },
		{ "HTTP/1.1 103 Early|\r\n\r\nHTTP/1.1 200 |OK\r\nContent-Length: 5\r\n\r\nh|ello", "hello", 200 },
		{ "HTTP/1.1 100 Continue\r\n\r\n|" OK, "hello", 200 },
		{ "HTTP/1.0 200 OK\r\n\r\nhel|lo!", "hello", 200 },
		{ "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello!", "hello", 200 },
	};
	struct scene c;

	begin(&c);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ask(&c, rows[i].answer);
		assert_string_equal(c.error, "");
		assert_string_equal(c.body, rows[i].body);
		assert_int_equal(c.status, rows[i].status);
	}
	end(&c);
}

static void what_is_no_answer_says_why(void **state)
{
	static const struct {
		const char *answer, *error;
	} rows[] = {
		{ "hello\r\n\r\n", "the answer is not HTTP/1.1" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "the answer is not HTTP/1.1" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel!",
		  "the connection broke before the answer was whole" },
		{ "!", "the connection broke before the answer was whole" },
		{ INTERIM INTERIM INTERIM "?", "the answer is not HTTP/1.1" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\nh", "the answer is larger than 1 MiB" },
		{ "?", "no answer within 0.05 s" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel?", "no answer within 0.05 s" },
	};
	struct scene c;

	begin(&c);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ask_host(&c, "GET", "127.0.0.1", NULL, rows[i].answer, 50);
		assert_string_equal(c.error, rows[i].error);
		assert_int_equal(c.status, 0);
	}
	ask(&c, OK);
	assert_string_equal(c.body, "hello");
	end(&c);
}

static void a_connection_is_kept_and_a_stale_one_replaced(void **state)
{
	struct scene c;

	begin(&c);
	for (int i = 0; i < 5; i++)
		ask(&c, OK);
	assert_int_equal(c.v.connections, 1);
	/* Closed behind the answer without a word: the loop sees it, or the next question does. */
	ask(&c, OK "|!");
	ask(&c, OK);
	assert_string_equal(c.body, "hello");
	assert_int_equal(c.v.connections, 2);
	/* Bytes that nobody asked for make it useless too. */
	ask(&c, OK "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad");
	ask(&c, OK);
	assert_string_equal(c.body, "hello");
	assert_int_equal(c.v.connections, 3);
	end(&c);
}

static void it_is_asked_as_told(void **state)
{
	struct scene c;

	begin(&c);
	ask_host(&c, "GET", "127.0.0.1", "k1", OK, 1000);
	assert_non_null(strstr(c.v.request, "GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:"));
	assert_non_null(strstr(c.v.request, "\r\nAuthorization: Bearer k1\r\n"));
	assert_null(strstr(c.v.request, "Content-Length"));
	ask_host(&c, "POST", "127.0.0.1", NULL, OK, 1000);
	assert_non_null(strstr(c.v.request, "POST /a?b HTTP/1.1\r\n"));
	assert_non_null(strstr(c.v.request, "\r\nContent-Length: 0\r\n"));
	assert_null(strstr(c.v.request, "Bearer"));
	end(&c);
}

static void a_name_is_looked_up(void **state)
{
	struct scene c;

	begin(&c);
	ask_host(&c, "GET", "localhost", NULL, OK, 2000); /* where it is ::1 too, the other address is tried */
	assert_string_equal(c.error, "");
	assert_string_equal(c.body, "hello");
	ask_host(&c, "GET", "no-such-name.invalid", NULL, OK, 2000);
	assert_true(c.error[0] && c.status == 0);
	/* Given up while the thread is at it. */
	assert_int_equal(fetch_go(&c.a, "GET", "http://localhost:1/", NULL, NS_PER_S), 0);
	end(&c);
}

static void nobody_there_is_an_error(void **state)
{
	struct scene c;

	begin(&c);
	assert_int_equal(fetch_go(&c.a, "GET", "http://127.0.0.1:1/", NULL, NS_PER_S), 0);
	while (!c.done)
		loop_turn(c.l, 10);
	assert_string_equal(c.error, "cannot connect: Connection refused");
	assert_int_equal(fetch_go(&c.a, "GET", "https://127.0.0.1:1/", NULL, NS_PER_S), 0);
	while (c.done < 2)
		loop_turn(c.l, 10);
	assert_non_null(strstr(c.error, "is not a URL of http://HOST:PORT/PATH"));
	end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_is_whole_whatever_its_framing_and_its_pieces),
		cmocka_unit_test(what_is_no_answer_says_why),
		cmocka_unit_test(a_connection_is_kept_and_a_stale_one_replaced),
		cmocka_unit_test(it_is_asked_as_told),
		cmocka_unit_test(a_name_is_looked_up),
		cmocka_unit_test(nobody_there_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
