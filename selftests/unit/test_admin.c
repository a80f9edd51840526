/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "ctl/ctl.h"
#include "talk.h"

static struct {
	struct loop *loop;
	struct admin *admin;
	pthread_t thread;
	struct net_addr addr;
} d;

#define BIG (8u << 20)

static int get_metrics(void *arg, struct str path, struct buf *body, const char **ret_type)
{
	*ret_type = "text/plain; version=0.0.4";
	buf_puts(body, "kvsteer_up 1\n");
	return arg == &d ? 200 : 500;
}

static int get_ready(void *arg, struct str path, struct buf *body, const char **ret_type)
{
	buf_puts(body, "no pods\n");
	return 503;
}

static int get_debug(void *arg, struct str path, struct buf *body, const char **ret_type)
{
	buf_printf(body, "[%.*s]", (int)path.n, path.p);
	return 200;
}

static int get_big(void *arg, struct str path, struct buf *body, const char **ret_type)
{
	memset(buf_room(body, BIG), 'x', BIG);
	buf_commit(body, BIG);
	return 200;
}

static int get_empty(void *arg, struct str path, struct buf *body, const char **ret_type)
{
	return 200;
}

static const struct admin_page pages[] = { { "/metrics", get_metrics },
					   { "/readyz", get_ready },
					   { "/debug/*", get_debug },
					   { "/big", get_big },
					   { "/empty", get_empty } };

static void *run(void *arg)
{
	loop_run(d.loop);
	return NULL;
}

static int setup(void **state)
{
	int fd;

	d.loop = loop_new();
	/* A free port: the kernel chooses one, and it stays ours long enough. */
	net_addr_parse(STR("127.0.0.1:0"), &d.addr);
	fd = net_listen(&d.addr, 1);
	getsockname(fd, &d.addr.sa, &d.addr.len);
	d.admin = admin_start(d.loop, &d.addr, pages, sizeof(pages) / sizeof(pages[0]), &d);
	close(fd);
	assert_non_null(d.admin);
	return pthread_create(&d.thread, NULL, run, NULL);
}

static int teardown(void **state)
{
	loop_stop(d.loop);
	pthread_join(d.thread, NULL);
	admin_stop(d.admin);
	loop_free(d.loop);
	return 0;
}

static int dial(void)
{
	struct timeval tv = { .tv_sec = 10 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, &d.addr.sa, d.addr.len), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fd;
}

static void a_request_gets_its_status(void **state)
{
	static const struct {
		const char *request, *status, *part;
	} rows[] = {
		{ "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\n",
		  "Content-Type: text/plain; version=0.0.4\r\nContent-Length: 13\r\n" },
		{ "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\n",
		  "\r\n\r\nkvsteer_up 1\n" },
		{ "GET //debug/../metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\n",
		  "\r\n\r\nkvsteer_up 1\n" },
		{ "GET /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n", "Connection: close\r\n" },
		{ "GET /readyz HTTP/1.0\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\n", "\r\n\r\nno pods\n" },
		{ "GET /debug/a/b HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n", "\r\n\r\n[/debug/a/b]" },
		{ "GET /empty HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n", "Content-Length: 0\r\n" },
		{ "GET /metricsx HTTP/1.0\r\n\r\n", "HTTP/1.1 404 Not Found\r\n", "\r\n\r\nno such page\n" },
		{ "POST /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 405 Method Not Allowed\r\n", "Allow: GET, HEAD\r\n" },
		{ "GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 400 Bad Request\r\n",
		  "a request here has no body\n" },
		{ "GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", "Connection: close\r\n" },
		{ "GET /%zz HTTP/1.0\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", "the path cannot be read\n" },
		{ "\x16\x03\x01\x02 not http\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", "Connection: close\r\n" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct buf b = { 0 };
		int fd = dial();

		say(fd, rows[i].request);
		shutdown(fd, SHUT_WR);
		hear(fd, &b);
		assert_true(str_starts(buf_str(&b), str_of(rows[i].status)));
		assert_non_null(strstr(buf_data(&b), rows[i].part));
		buf_free(&b);
	}
}

static void a_head_answer_has_the_length_but_no_body(void **state)
{
	struct buf b = { 0 };
	int fd = dial();

	say(fd, "HEAD /metrics HTTP/1.0\r\n\r\n");
	hear(fd, &b);
	assert_non_null(strstr(buf_data(&b), "Content-Length: 13\r\n"));
	assert_string_equal(strstr(buf_data(&b), "\r\n\r\n"), "\r\n\r\n");
	buf_free(&b);
}

static void a_connection_serves_many_requests_however_they_are_cut(void **state)
{
	static const char text[] = "GET /debug/1 HTTP/1.1\r\nHost: a\r\nX-Longer: than what follows it\r\n\r\nGET "
				   "/debug/2 HTTP/1.1\r\nHost: a\r\n\r\n"
				   "GET /debug/3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

	for (size_t step = 1; step < sizeof(text); step += 17) {
		struct buf b = { 0 };
		const char *p;
		int fd = dial();

		for (size_t i = 0; i < sizeof(text) - 1; i += step) {
			size_t n = sizeof(text) - 1 - i;

			assert_true(send(fd, text + i, n < step ? n : step, MSG_NOSIGNAL) > 0);
		}
		hear(fd, &b);
		p = strstr(buf_data(&b), "[/debug/1]HTTP/1.1 200");
		assert_non_null(p);
		p = strstr(p, "[/debug/2]HTTP/1.1 200");
		assert_non_null(p);
		assert_non_null(strstr(p, "[/debug/3]"));
		buf_free(&b);
	}
}

static void a_head_without_end_is_refused_and_the_refusal_arrives(void **state)
{
	static const char line[] = "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n";
	struct buf b = { 0 };
	int fd = dial();

	say(fd, "GET / HTTP/1.1\r\n");
	for (size_t sent = 0; sent < 40000; sent += sizeof(line))
		if (send(fd, line, sizeof(line) - 1, MSG_NOSIGNAL) < 0)
			break;
	shutdown(fd, SHUT_WR);
	hear(fd, &b);
	assert_true(str_starts(buf_str(&b), STR("HTTP/1.1 431 ")));
	buf_free(&b);
}

static void a_large_page_arrives_whole_at_a_slow_reader(void **state)
{
	struct buf b = { 0 };
	int fd = dial();

	say(fd, "GET /big HTTP/1.1\r\nHost: a\r\n\r\nGET /big HTTP/1.0\r\n\r\n");
	usleep(50000);
	hear(fd, &b);
	assert_in_range(buf_len(&b), 2 * BIG, 2 * BIG + 1000);
	buf_free(&b);
}

static void silent_connections_make_room_for_new_ones(void **state)
{
	struct buf b = { 0 };
	int fds[70];

	for (unsigned i = 0; i < 70; i++)
		fds[i] = dial();
	say(fds[69], "GET /metrics HTTP/1.0\r\n\r\n");
	hear(fds[69], &b);
	assert_non_null(strstr(buf_data(&b), "kvsteer_up 1\n"));
	for (unsigned i = 0; i < 69; i++)
		close(fds[i]);
	buf_free(&b);
}

static void curl_is_served_twice_on_one_connection(void **state)
{
	char name[NET_NAME_MAX], cmd[256], out[256] = "";
	FILE *p;

	if (system("command -v curl >/dev/null 2>&1") != 0) {
		print_message("SKIP: no curl here\n");
		skip();
	}
	net_addr_format(&d.addr, name);
	snprintf(cmd, sizeof(cmd),
		 "curl -sS --noproxy '*' -w '%%{num_connects}\\n' http://%s/metrics http://%s/metrics", name, name);
	p = popen(cmd, "r");
	assert_non_null(p);
	assert_true(fread(out, 1, sizeof(out) - 1, p) > 0);
	assert_int_equal(pclose(p), 0);
	assert_string_equal(out, "kvsteer_up 1\n1\nkvsteer_up 1\n0\n");
}

#define SERVED(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SERVED(a_request_gets_its_status),
		SERVED(a_head_answer_has_the_length_but_no_body),
		SERVED(a_connection_serves_many_requests_however_they_are_cut),
		SERVED(a_head_without_end_is_refused_and_the_refusal_arrives),
		SERVED(a_large_page_arrives_whole_at_a_slow_reader),
		SERVED(silent_connections_make_room_for_new_ones),
		SERVED(curl_is_served_twice_on_one_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
