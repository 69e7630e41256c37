/* SPDX-License-Identifier: Apache-2.0 */
/* door.c - the unix socket of a running VM; door.h. */
#include "cluster-config/door.h"

#include "base/log.h"
#include "cluster-config/conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct client {
	struct cc_door *door;
	struct cc_conn *conn; /* NULL: free */
};

struct pending {
	struct client *client; /* NULL: free, or nobody wants the answer */
	uint64_t id;           /* the client's */
	uint64_t own;          /* ours; 0: free */
};

struct cc_door {
	struct cc_loop *loop;
	struct cc_watch watch;
	void (*on_order)(void *arg, const struct cc_order *o);
	void *arg;
	char name[CC_NAME_MAX + 16], path[CC_DOOR_PATH_MAX],
		size[NODES_MAX * (CC_NAME_MAX + 1) + 8];
	struct client client[CC_DOOR_CLIENTS];
	struct pending pending[CC_DOOR_ORDERS];
	uint64_t last;
};

/* Ours alone: nobody else may put a socket there. */
static int folder_check(const char *dir, bool make)
{
	struct stat st;

	if (make && mkdir(dir, 0700) && errno != EEXIST)
		return -errno;
	if (lstat(dir, &st))
		return -errno;
	return S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 077) ? 0 : -EPERM;
}

int cc_door_path(const char *vm, bool make, char out[static CC_DOOR_PATH_MAX])
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char dir[CC_DOOR_PATH_MAX];
	int n, err;

	if (runtime && *runtime == '/')
		n = snprintf(dir, sizeof(dir), "%s/unum", runtime);
	else if (!geteuid())
		n = snprintf(dir, sizeof(dir), "/run/unum");
	else
		n = snprintf(dir, sizeof(dir), "/tmp/unum-%u", (unsigned)geteuid());
	if (n < 0 || (size_t)n >= sizeof(dir))
		return -ENAMETOOLONG;
	err = folder_check(dir, make);
	if (err)
		return err;
	n = snprintf(out, CC_DOOR_PATH_MAX, "%s/%s.sock", dir, vm);
	return n < 0 || (size_t)n >= CC_DOOR_PATH_MAX ? -ENAMETOOLONG : 0;
}

static int dial(const char *path, int *fd)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int err = 0;

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*fd < 0)
		return -errno;
	if (connect(*fd, (struct sockaddr *)&at, sizeof(at)))
		err = -errno;
	if (err)
		close(*fd);
	return err;
}

int cc_door_dial(const char *vm, int *fd)
{
	char path[CC_DOOR_PATH_MAX];
	int err = cc_door_path(vm, false, path);

	return err ? err : dial(path, fd);
}

/* --- clients ------------------------------------------------------------------------------------ */

static void client_drop(struct client *c)
{
	struct cc_door *d = c->door;

	cc_conn_free(c->conn);
	c->conn = NULL;
	for (unsigned i = 0; i < CC_DOOR_ORDERS; i++)
		if (d->pending[i].client == c)
			d->pending[i].client = NULL;
}

static void on_message(void *arg, const struct cc_msg *msg)
{
	struct client *c = arg;
	struct cc_door *d = c->door;
	struct cc_order o;
	unsigned i = 0;

	if (msg->type != CC_MSG_ORDER) {
		client_drop(c);
		return;
	}
	o = msg->order;
	while (i < CC_DOOR_ORDERS && d->pending[i].own)
		i++;
	if (i == CC_DOOR_ORDERS) {
		cc_conn_send(c->conn, &(struct cc_msg){
					      .type = CC_MSG_ANSWER,
					      .answer = { .id = o.id,
							  .last = true,
							  .text = "too many orders at once" },
				      });
		return;
	}
	d->pending[i] = (struct pending){ c, o.id, ++d->last };
	o.id = d->last;
	d->on_order(d->arg, &o);
}

static void on_close(void *arg, const char *why, bool garbage)
{
	(void)why;
	(void)garbage;
	client_drop(arg);
}

static void on_knock(void *arg, uint32_t events)
{
	static const struct cc_conn_ops ops = { .on_message = on_message, .on_close = on_close };
	struct cc_msg hello = { .type = CC_MSG_HELLO };
	struct cc_door *d = arg;
	int fd = accept4(d->watch.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	unsigned i = 0;

	(void)events;
	if (fd < 0)
		return;
	while (i < CC_DOOR_CLIENTS && d->client[i].conn)
		i++;
	if (i == CC_DOOR_CLIENTS || cc_conn_make(d->loop, fd, CC_CONN_PLAIN, NULL, &ops,
						 &d->client[i], &d->client[i].conn)) {
		log_warn("door: a client is turned away");
		if (i == CC_DOOR_CLIENTS)
			close(fd);
		return;
	}
	hello.hello = (struct cc_hello){ CC_VERSION, d->size };
	cc_conn_send(d->client[i].conn, &hello);
}

void cc_door_answer(struct cc_door *d, const struct cc_answer *a)
{
	for (unsigned i = 0; i < CC_DOOR_ORDERS; i++) {
		struct pending *p = &d->pending[i];
		struct cc_msg m = { .type = CC_MSG_ANSWER, .answer = *a };

		if (p->own != a->id || !a->id)
			continue;
		m.answer.id = p->id;
		if (p->client)
			cc_conn_send(p->client->conn, &m);
		if (a->last)
			p->own = 0;
		return;
	}
}

/* --- life --------------------------------------------------------------------------------------- */

/* A socket file that nobody listens on any more is in the way of nobody. */
static int bind_at(int fd, const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int other, err;

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	if (!bind(fd, (struct sockaddr *)&at, sizeof(at)))
		return 0;
	if (errno != EADDRINUSE)
		return -errno;
	err = dial(path, &other);
	if (!err)
		close(other);
	if (err != -ECONNREFUSED)
		return -EADDRINUSE;
	unlink(path);
	return bind(fd, (struct sockaddr *)&at, sizeof(at)) ? -errno : 0;
}

static int listen_as(struct cc_door *d, const char *vm)
{
	int err;

	snprintf(d->name, sizeof(d->name), "%s", vm);
	err = cc_door_path(d->name, true, d->path);
	if (!err)
		err = bind_at(d->watch.fd, d->path);
	if (err == -EADDRINUSE) {
		snprintf(d->name, sizeof(d->name), "%s-%d", vm, (int)getpid());
		err = cc_door_path(d->name, true, d->path);
		if (!err)
			err = bind_at(d->watch.fd, d->path);
	}
	if (!err && (chmod(d->path, 0600) || listen(d->watch.fd, 8)))
		err = -errno;
	return err;
}

int cc_door_open(struct cc_loop *loop, const char *vm, const char *size,
		 void (*on_order)(void *arg, const struct cc_order *o), void *arg,
		 struct cc_door **out)
{
	struct cc_door *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	d->loop = loop;
	d->on_order = on_order;
	d->arg = arg;
	snprintf(d->size, sizeof(d->size), "%s", size);
	for (unsigned i = 0; i < CC_DOOR_CLIENTS; i++)
		d->client[i].door = d;
	d->watch = (struct cc_watch){ .fd = socket(AF_UNIX,
						   SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
				      .on_event = on_knock,
				      .arg = d };
	if (d->watch.fd < 0) {
		err = -errno;
		free(d);
		return err;
	}
	err = listen_as(d, vm);
	if (!err)
		err = cc_loop_add(loop, &d->watch, EPOLLIN);
	if (err) {
		close(d->watch.fd);
		free(d);
		return err;
	}
	*out = d;
	return 0;
}

const char *cc_door_name(const struct cc_door *d)
{
	return d->name;
}

void cc_door_close(struct cc_door *d)
{
	if (!d)
		return;
	for (unsigned i = 0; i < CC_DOOR_CLIENTS; i++)
		if (d->client[i].conn)
			client_drop(&d->client[i]);
	cc_loop_del(d->loop, &d->watch);
	close(d->watch.fd);
	unlink(d->path);
	free(d);
}
