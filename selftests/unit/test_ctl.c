/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/time.h"
#include "ctl/ctl.h"
#include "talk.h"

/* The daemon's side: a loop in a thread of its own, with commands that do what their names say. */
static struct {
	char dir[32], path[64];
	struct loop *loop;
	struct ctl *ctl;
	pthread_t thread;
	struct ctl_conn *tail; /* loop's thread only */
	struct loop_timer tick;
	uint64_t next;
	_Atomic unsigned closed, flooded;
} d;

static enum ctl_code cmd_echo(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	jw_obj(w);
	jw_kstr(w, "said", json_string_value(json_object_get(args, "say")));
	jw_end_obj(w);
	return arg == &d ? CTL_OK : CTL_FAILED;
}

static enum ctl_code cmd_nothing(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	return CTL_OK;
}

static enum ctl_code cmd_fail(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	jw_obj(w); /* half an answer, which must not show */
	buf_puts(err, "no pod \"x\"");
	return (enum ctl_code)json_integer_value(json_object_get(args, "code"));
}

static enum ctl_code cmd_big(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	jw_arr(w);
	for (unsigned i = 0; i < 1000000; i++)
		jw_u64(w, i);
	jw_end_arr(w);
	return CTL_OK;
}

static void tail_closed(void *arg, struct ctl_conn *c)
{
	assert_ptr_equal(c, d.tail);
	d.tail = NULL;
	loop_timer_del(d.loop, &d.tick);
	atomic_fetch_add(&d.closed, 1);
}

static void tick(struct loop_timer *t)
{
	char n[32];

	snprintf(n, sizeof(n), "%u", (unsigned)d.next++);
	if (ctl_conn_line(d.tail, str_of(n)) == 0)
		loop_timer_set(d.loop, t, loop_now(d.loop) + NS_PER_MS);
}

static enum ctl_code cmd_tail(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	ctl_conn_keep(c, tail_closed, NULL);
	d.tail = c;
	d.next = 1;
	assert_int_equal(ctl_conn_line(c, STR("0")), 0);
	loop_timer_set(d.loop, &d.tick, loop_now(d.loop) + NS_PER_MS);
	return CTL_OK;
}

/* Lines of 64 KiB to a reader that does not read, until one is refused. */
static enum ctl_code cmd_flood(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	static char line[65536];
	unsigned n = 0;

	ctl_conn_keep(c, tail_closed, NULL);
	d.tail = c;
	memset(line, '1', sizeof(line));
	while (n < 10000 && ctl_conn_line(c, (struct str){ line, sizeof(line) }) == 0)
		n++;
	assert_in_range(n, 1, 9999);
	atomic_store(&d.flooded, 1);
	return CTL_OK;
}

static const struct ctl_cmd cmds[] = {
	{ "echo", cmd_echo }, { "nothing", cmd_nothing }, { "fail", cmd_fail },
	{ "big", cmd_big },   { "tail", cmd_tail },	  { "flood", cmd_flood },
};

static void *run(void *arg)
{
	loop_run(d.loop);
	return NULL;
}

static int setup(void **state)
{
	memset(&d, 0, sizeof(d));
	strcpy(d.dir, "/tmp/kvs-ctl-XXXXXX");
	assert_non_null(mkdtemp(d.dir));
	snprintf(d.path, sizeof(d.path), "%s/run/ctl.sock", d.dir);
	d.loop = loop_new();
	loop_timer_init(&d.tick, tick);
	d.ctl = ctl_start(d.loop, d.path, cmds, sizeof(cmds) / sizeof(cmds[0]), &d);
	assert_non_null(d.ctl);
	return pthread_create(&d.thread, NULL, run, NULL);
}

static int teardown(void **state)
{
	char run_dir[64];

	loop_stop(d.loop);
	pthread_join(d.thread, NULL);
	ctl_stop(d.ctl);
	assert_int_equal(access(d.path, F_OK), -1);
	loop_free(d.loop);
	snprintf(run_dir, sizeof(run_dir), "%s/run", d.dir);
	rmdir(run_dir);
	return rmdir(d.dir);
}

static int dial(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct timeval tv = { .tv_sec = 10 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, d.path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fd;
}

static void a_command_gets_its_arguments_and_gives_its_data(void **state)
{
	json_t *args = json_pack("{s:s}", "say", "a\nb"), *v = NULL;

	assert_int_equal(ctl_call(d.path, "echo", args, &v), 0);
	assert_true(json_is_true(json_object_get(v, "ok")));
	assert_string_equal(json_string_value(json_object_get(json_object_get(v, "data"), "said")), "a\nb");
	json_decref(v);
	json_decref(args);
	assert_int_equal(ctl_call(d.path, "nothing", NULL, &v), 0);
	assert_true(json_is_null(json_object_get(v, "data")));
	json_decref(v);
}

static void a_request_that_cannot_be_done_says_why(void **state)
{
	static const struct {
		const char *line, *answer;
	} rows[] = {
		{ "{\"cmd\":\"fail\",\"args\":{\"code\":1}}",
		  "{\"ok\":false,\"code\":\"failed\",\"error\":\"no pod \\\"x\\\"\"}\n" },
		{ "{\"cmd\":\"fail\",\"args\":{\"code\":2}}",
		  "{\"ok\":false,\"code\":\"usage\",\"error\":\"no pod \\\"x\\\"\"}\n" },
		{ "{\"cmd\":\"fail\",\"args\":{\"code\":3}}",
		  "{\"ok\":false,\"code\":\"not_found\",\"error\":\"no pod \\\"x\\\"\"}\n" },
		{ "{\"cmd\":\"pod.dance\"}",
		  "{\"ok\":false,\"code\":\"usage\",\"error\":\"this daemon knows no such command\"}\n" },
		{ "{\"cmd\":\"echo\",\"args\":[]}",
		  "{\"ok\":false,\"code\":\"usage\",\"error\":\"args is not an object\"}\n" },
		{ "{\"command\":\"echo\"}", "{\"ok\":false,\"code\":\"usage\",\"error\":\"a request is "
					    "{\\\"cmd\\\":NAME,\\\"args\\\":{…}}\"}\n" },
		{ "[]", "{\"ok\":false,\"code\":\"usage\",\"error\":\"a request is "
			"{\\\"cmd\\\":NAME,\\\"args\\\":{…}}\"}\n" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct buf b = { 0 };
		int fd = dial();

		say(fd, rows[i].line);
		say(fd, "\n");
		shutdown(fd, SHUT_WR);
		hear(fd, &b);
		assert_string_equal(buf_data(&b), rows[i].answer);
		buf_free(&b);
	}
}

static void what_is_no_json_is_refused_and_the_next_line_is_read(void **state)
{
	struct buf b = { 0 };
	int fd = dial();

	say(fd, "GET / HTTP/1.1\r\n\n{\"cmd\":\"nothing\"}\n");
	shutdown(fd, SHUT_WR);
	hear(fd, &b);
	assert_non_null(strstr(buf_data(&b), "\"code\":\"usage\""));
	assert_non_null(strstr(buf_data(&b), "\n{\"ok\":true,\"data\":null}\n"));
	buf_free(&b);
}

static void lines_are_answered_in_order_however_they_are_cut(void **state)
{
	static const char lines[] = "{\"cmd\":\"echo\",\"args\":{\"say\":\"1\"}}\n{\"cmd\":\"nothing\"}\n"
				    "{\"cmd\":\"echo\",\"args\":{\"say\":\"2\"}}";
	static const char want[] = "{\"ok\":true,\"data\":{\"said\":\"1\"}}\n{\"ok\":true,\"data\":null}\n"
				   "{\"ok\":true,\"data\":{\"said\":\"2\"}}\n";

	for (size_t step = 1; step < sizeof(lines); step += 13) {
		struct buf b = { 0 };
		int fd = dial();

		for (size_t i = 0; i < sizeof(lines) - 1; i += step) {
			size_t n = sizeof(lines) - 1 - i;

			assert_true(send(fd, lines + i, n < step ? n : step, MSG_NOSIGNAL) > 0);
		}
		shutdown(fd, SHUT_WR); /* the last line has no line feed */
		hear(fd, &b);
		assert_string_equal(buf_data(&b), want);
		buf_free(&b);
	}
}

static void a_large_answer_arrives_whole(void **state)
{
	json_t *v = NULL;

	assert_int_equal(ctl_call(d.path, "big", NULL, &v), 0);
	assert_int_equal(json_array_size(json_object_get(v, "data")), 1000000);
	json_decref(v);
}

static void a_line_over_1_mib_is_refused(void **state)
{
	struct buf b = { 0 }, line = { 0 };
	char *x = buf_room(&line, (1 << 20) + 65536);
	json_t *args, *v = NULL;
	int fd = dial();

	memset(x, 'x', (1 << 20) + 65536);
	x[(1 << 20) + 65535] = '\0';
	/* The daemon answers and hangs up in the middle; what cannot be sent any more is no matter. */
	if (send(fd, x, (1 << 20) + 1, MSG_NOSIGNAL) > 0) {
	}
	shutdown(fd, SHUT_WR);
	hear(fd, &b);
	assert_string_equal(buf_data(&b),
			    "{\"ok\":false,\"code\":\"usage\",\"error\":\"a line is longer than 1 MiB\"}\n");
	buf_free(&b);
	args = json_pack("{s:s}", "say", x);
	assert_int_equal(ctl_call(d.path, "echo", args, &v), -E2BIG);
	json_decref(args);
	buf_free(&line);
}

static bool three(void *arg, json_t *v)
{
	unsigned *n = arg;

	assert_int_equal(json_integer_value(json_object_get(v, "data")), *n);
	return ++*n < 3;
}

static void wait_for(_Atomic unsigned *what)
{
	for (unsigned i = 0; i < 10000 && !atomic_load(what); i++)
		usleep(1000);
	assert_int_equal(atomic_load(what), 1);
}

static void a_stream_goes_on_until_the_reader_leaves(void **state)
{
	unsigned n = 0;

	assert_int_equal(ctl_follow(d.path, "tail", NULL, three, &n), 0);
	assert_int_equal(n, 3);
	wait_for(&d.closed);
}

static void a_stream_survives_a_half_close(void **state)
{
	char c = 0;
	int fd = dial();

	say(fd, "{\"cmd\":\"tail\"}\n");
	shutdown(fd, SHUT_WR);
	for (unsigned lines = 0; lines < 5; lines += c == '\n')
		assert_int_equal(recv(fd, &c, 1, 0), 1);
	assert_int_equal(atomic_load(&d.closed), 0);
	close(fd);
	wait_for(&d.closed);
}

static void a_slow_reader_loses_lines_but_none_is_cut(void **state)
{
	struct timeval tv = { .tv_usec = 300000 };
	struct buf b = { 0 };
	int fd = dial();
	ssize_t n;

	say(fd, "{\"cmd\":\"flood\"}\n");
	wait_for(&d.flooded);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	while ((n = recv(fd, buf_room(&b, 65536), 65536, 0)) > 0)
		buf_commit(&b, (size_t)n);
	assert_true(buf_len(&b) > 1 << 19);
	assert_true(buf_len(&b) < 3 << 20);
	assert_int_equal(buf_len(&b) % (65536 + strlen("{\"ok\":true,\"data\":}\n")), 0);
	close(fd);
	wait_for(&d.closed);
	buf_free(&b);
}

static void silent_connections_make_room_for_new_ones(void **state)
{
	struct buf b = { 0 };
	json_t *v = NULL;
	int fds[64];

	for (unsigned i = 0; i < 64; i++)
		fds[i] = dial();
	say(fds[0], "{\"cmd\":\"nothing\"}\n");
	assert_true(recv(fds[0], buf_room(&b, 64), 64, 0) > 0);
	assert_int_equal(ctl_call(d.path, "nothing", NULL, &v), 0);
	json_decref(v);
	hear(fds[1], &b); /* the longest silent one */
	say(fds[0], "{\"cmd\":\"nothing\"}\n");
	assert_true(recv(fds[0], buf_room(&b, 64), 64, 0) > 0);
	for (unsigned i = 0; i < 64; i++)
		if (i != 1)
			close(fds[i]);
	buf_free(&b);
}

static void the_socket_is_for_owner_and_group(void **state)
{
	struct stat st;

	assert_int_equal(stat(d.path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0660);
}

static void a_live_socket_is_left_alone(void **state)
{
	struct loop *l = loop_new();
	json_t *v = NULL;

	assert_null(ctl_start(l, d.path, cmds, 1, NULL));
	assert_int_equal(errno, EADDRINUSE);
	assert_int_equal(ctl_call(d.path, "nothing", NULL, &v), 0);
	json_decref(v);
	loop_free(l);
}

static void a_stale_socket_is_replaced_but_a_file_is_not(void **state)
{
	char dir[] = "/tmp/kvs-ctl-XXXXXX", path[64];
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct loop *l = loop_new();
	json_t *v = NULL;
	struct ctl *c;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	assert_int_equal(ctl_call(path, "nothing", NULL, &v), -ENOENT);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	strcpy(a.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	assert_int_equal(ctl_call(path, "nothing", NULL, &v), -ECONNREFUSED);
	c = ctl_start(l, path, cmds, 1, NULL);
	assert_non_null(c);
	ctl_stop(c);
	assert_int_equal(access(path, F_OK), -1);
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_null(ctl_start(l, path, cmds, 1, NULL));
	assert_int_equal(errno, EEXIST);
	assert_int_equal(unlink(path), 0);
	rmdir(dir);
	loop_free(l);
}

#define WITH_DAEMON(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_DAEMON(a_command_gets_its_arguments_and_gives_its_data),
		WITH_DAEMON(a_request_that_cannot_be_done_says_why),
		WITH_DAEMON(what_is_no_json_is_refused_and_the_next_line_is_read),
		WITH_DAEMON(lines_are_answered_in_order_however_they_are_cut),
		WITH_DAEMON(a_large_answer_arrives_whole),
		WITH_DAEMON(a_line_over_1_mib_is_refused),
		WITH_DAEMON(a_stream_goes_on_until_the_reader_leaves),
		WITH_DAEMON(a_stream_survives_a_half_close),
		WITH_DAEMON(a_slow_reader_loses_lines_but_none_is_cut),
		WITH_DAEMON(silent_connections_make_room_for_new_ones),
		WITH_DAEMON(the_socket_is_for_owner_and_group),
		WITH_DAEMON(a_live_socket_is_left_alone),
		cmocka_unit_test(a_stale_socket_is_replaced_but_a_file_is_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
