// SPDX-License-Identifier: AGPL-3.0-only

package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openthings-platform/openthings/testpeers"
)

// Server is a real PostgreSQL for tests that stop it, kill it or let a standby take over. It syncs, as a house's would.
type Server struct {
	t        testing.TB
	bin, dir string // dir holds data, password and log
	port     int
	password string
	params   []string // of the command line
	in       *os.File // when it closes, the wrapper stops the server
	ended    chan struct{}
}

// own is the wrapper of a Server: what its standard input holds open it stops, at once and hard, when that ends, however the
// test process ended.
const own = `
cd /
"$1/postgres" -D "$2/data" -p "$3" -c listen_addresses=127.0.0.1 -c unix_socket_directories= "${@:4}" >>"$2/log" 2>&1 &
pid=$!
cat >/dev/null
kill -QUIT $pid 2>/dev/null
wait $pid
`

// NewServer makes and starts a server on a free loopback port; its data are removed when the test ends.
func NewServer(t testing.TB) *Server {
	t.Helper()
	s := newServer(t)
	s.password = rand.Text()
	if err := os.WriteFile(filepath.Join(s.dir, "password"), []byte(s.password), 0o644); err != nil { // for the user that PostgreSQL runs as
		t.Fatal(err)
	}
	s.run("initdb", "--no-sync", "-D", filepath.Join(s.dir, "data"), "-U", "openthings", "--pwfile="+filepath.Join(s.dir, "password"),
		"--auth=scram-sha-256", "-E", "UTF8", "--locale=C")
	s.Start()
	return s
}

func newServer(t testing.TB) *Server {
	t.Helper()
	bin, err := postgresBin()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, bin: bin}
	if s.port, err = testpeers.FreePort(); err != nil {
		t.Fatal(err)
	}
	if s.dir, err = os.MkdirTemp("", "openthings-postgres-"); err != nil {
		t.Fatal(err)
	}
	if c := unprivileged(t); c != nil {
		if err := os.Chown(s.dir, int(c.Uid), int(c.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			t.Logf("log of PostgreSQL on port %d:\n%s", s.port, log[max(0, len(log)-4000):])
		}
		os.RemoveAll(s.dir)
	})
	return s
}

// unprivileged is who runs PostgreSQL, which refuses to be root; nil: whoever runs the test.
func unprivileged(t testing.TB) *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// answers says that the server takes connections. Whoever else has the port may take them and say nothing.
func answers(dbURL string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, dbURL)
	if err != nil {
		return false
	}
	_ = c.Close(ctx) // it has answered
	return true
}

// portTaken says that the server of the folder has found its port taken after all and has ended; its wrapper waits on.
func portTaken(dir string) (log []byte, taken bool) {
	log, _ = os.ReadFile(filepath.Join(dir, "log")) // it may not be there yet
	return log, bytes.Contains(log, []byte("could not create any TCP/IP sockets"))
}

func postgresBin() (string, error) {
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(bins) == 0 {
		return "", fmt.Errorf("no /usr/lib/postgresql/*/bin/postgres: install Debian's postgresql (scripts/deps.sh does)")
	}
	slices.Sort(bins)
	return filepath.Dir(bins[len(bins)-1]), nil
}

// run runs one of PostgreSQL's programs to its end.
func (s *Server) run(program string, args ...string) {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), "PGPASSWORD="+s.password)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: unprivileged(s.t)}
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// Start starts the server, again after Stop or Kill, and waits until it answers.
func (s *Server) Start(params ...string) {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.params = append(s.params, params...)
	var args []string
	for _, p := range s.params {
		args = append(args, "-c", p)
	}
	cmd := exec.Command("/bin/bash", append([]string{"-c", own, "bash", s.bin, s.dir, strconv.Itoa(s.port)}, args...)...)
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: unprivileged(s.t)}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	r.Close()
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	s.in, s.ended = w, ended
	for {
		if answers(s.URL()) {
			return
		}
		select {
		case <-ended:
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.t.Fatalf("PostgreSQL did not start: %s\n%s", said.String(), log)
		case <-time.NewTimer(10 * time.Millisecond).C:
		}
		if log, taken := portTaken(s.dir); taken {
			s.t.Fatalf("PostgreSQL did not start on port %d: %s", s.port, log)
		}
	}
}

// Stop ends the server as "pg_ctl stop -m immediate" does: without a checkpoint, to be recovered at the next start.
func (s *Server) Stop() {
	if s.in != nil {
		s.in.Close()
		<-s.ended
		s.in = nil
	}
}

// Kill is kill -9 of the server and all its children at one moment.
func (s *Server) Kill() {
	s.t.Helper()
	main := s.pid()
	must := func(err error) {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	must(syscall.Kill(main, syscall.SIGSTOP)) // it starts no further child
	for _, pid := range children(s.t, main) {
		must(syscall.Kill(pid, syscall.SIGKILL))
	}
	must(syscall.Kill(main, syscall.SIGKILL))
	s.Stop()
}

// Freeze stops the children that do the named work ("walsender") until the server is killed, and says how many there were.
func (s *Server) Freeze(work string) (n int) {
	s.t.Helper()
	for _, pid := range children(s.t, s.pid()) {
		title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.Contains(title, []byte(work)) {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				s.t.Fatal(err)
			}
			n++
		}
	}
	return n
}

func (s *Server) pid() int {
	b, err := os.ReadFile(filepath.Join(s.dir, "data", "postmaster.pid"))
	if err != nil {
		s.t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

// children lists the processes whose parent is pid.
func children(t testing.TB, pid int) (out []int) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		_, rest, _ := strings.Cut(string(b), ") ") // the name before may hold anything
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			out = append(out, child)
		}
	}
	return out
}

// Standby copies the server and starts a standby that the server's commits wait for from now on.
func (s *Server) Standby() *Server {
	s.t.Helper()
	b := newServer(s.t)
	b.password = s.password
	b.run("pg_basebackup", "--no-sync", "-R", "-X", "stream", "-c", "fast", "-D", filepath.Join(b.dir, "data"),
		"-d", fmt.Sprintf("host=127.0.0.1 port=%d user=openthings dbname=postgres", s.port))
	b.Start("synchronous_standby_names=") // alone after the takeover, until somebody gives it a standby of its own
	s.Exec(`ALTER SYSTEM SET synchronous_standby_names = '*'`)
	s.Exec(`SELECT pg_reload_conf()`)
	s.Until(`SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'`)
	return b
}

// Promote makes a standby take over, and waits until it takes writes.
func (s *Server) Promote() {
	s.t.Helper()
	s.Exec(`SELECT pg_promote(true)`)
	s.Until(`SELECT NOT pg_is_in_recovery()`)
}

// URL names the database of the servers; the one that takes writes is used.
func (s *Server) URL(others ...*Server) string {
	hosts, more := fmt.Sprintf("127.0.0.1:%d", s.port), ""
	for _, o := range others {
		hosts += fmt.Sprintf(",127.0.0.1:%d", o.port)
		more = "&target_session_attrs=read-write"
	}
	return fmt.Sprintf("postgres://openthings:%s@%s/postgres?sslmode=disable%s", s.password, hosts, more)
}

// Exec runs a statement as the administrator.
func (s *Server) Exec(query string, args ...any) {
	s.t.Helper()
	s.each(query, func(pgx.Rows) {}, args...)
}

// Is asks a question whose answer is true or false.
func (s *Server) Is(query string, args ...any) (yes bool) {
	s.t.Helper()
	s.each(query, func(r pgx.Rows) {
		if err := r.Scan(&yes); err != nil {
			s.t.Fatal(err)
		}
	}, args...)
	return yes
}

// Until waits until the answer is true.
func (s *Server) Until(query string, args ...any) {
	s.t.Helper()
	for !s.Is(query, args...) {
		<-time.NewTimer(5 * time.Millisecond).C
	}
}

func (s *Server) each(query string, row func(pgx.Rows), args ...any) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close(ctx)
	rows, err := c.Query(ctx, query, args...)
	if err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	for rows.Next() {
		row(rows)
	}
	if err := rows.Err(); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
}
