package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/api/wire"
	"github.com/capsule-run/capsule/supervisor/client"
	"github.com/capsule-run/capsule/supervisor/server"
)

// otherUID is a user that needs no account.
const otherUID = 64999

// otherUser names the environment of a process that acts as another user.
const otherUser = "CAPSULE_TEST_OTHER_USER"

func TestMain(m *testing.M) {
	if address := os.Getenv(otherUser); address != "" {
		if how := os.Getenv(otherUser + "_HOARDS"); how != "" {
			if err := hoards[how](address); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			fmt.Println("fine")
			os.Exit(0)
		}
		if os.Getenv(otherUser+"_FOLLOWS") != "" {
			os.Exit(follow(address))
		}
		os.Exit(actAsOther(address, os.Getenv(otherUser+"_ID")))
	}
	os.Exit(m.Run())
}

// actAsOther uses a supervisor of root's as somebody else.
func actAsOther(address, foreign string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Dial(ctx, address)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if foreign == "" {
		return actGreedy(ctx, address, c)
	}
	missing := &fault.Fault{Code: fault.NotFound}
	_, waited := c.WaitOwned(ctx, foreign)
	_, killed := c.Kill(ctx, foreign, syscall.SIGKILL, true)
	attached := c.Attach(ctx, foreign, &api.AttachOptions{Stdout: io.Discard})
	own, started := c.Start(ctx, &api.StartRequest{Request: []byte(request), ID: "mine"})
	switch {
	case !errors.Is(waited, missing) || !errors.Is(killed, missing) || !errors.Is(attached, missing):
		fmt.Println("the execution of another is reached:", waited, killed, attached)
	case started != nil || own.Owner != otherUID:
		fmt.Println("start:", own, started)
	default:
		fmt.Println("fine")
		return 0
	}
	return 1
}

// follow follows the output of an execution, as one who could do with a pipe.
func follow(address string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id := fmt.Sprint("of-", os.Geteuid())
	c, err := client.Dial(ctx, address)
	if err == nil {
		_, err = c.Start(ctx, &api.StartRequest{Request: []byte(request), ID: id})
	}
	if err == nil {
		err = c.Attach(ctx, id, &api.AttachOptions{Hold: true, Stdout: io.Discard})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("fine")
	return 0
}

// actGreedy takes more of a supervisor than one user may.
func actGreedy(ctx context.Context, address string, c *client.Client) int {
	if _, err := c.Start(ctx, &api.StartRequest{Request: []byte(request), ID: "mine"}); err != nil {
		fmt.Println("start:", err)
		return 1
	}
	tooMuch := &fault.Fault{Code: fault.TooManyExecutions}
	// Stdin that nobody reads.
	if err := c.Attach(ctx, "mine", &api.AttachOptions{Stdin: zeros{}, Stdout: io.Discard}); !errors.Is(err, tooMuch) {
		fmt.Println("unread stdin:", err)
		return 1
	}
	// What that held is free again; streams of all connections count together.
	other, err := client.Dial(ctx, address)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	ends := make(chan error, 3)
	for _, on := range []*client.Client{c, other, c} {
		go func() { ends <- on.Attach(ctx, "mine", &api.AttachOptions{Stdout: io.Discard}) }()
	}
	if err := <-ends; !errors.Is(err, tooMuch) {
		fmt.Println("streams:", err)
		return 1
	}
	_ = c.Close() // the second stream is on it, or on the other
	_ = other.Close()
	fmt.Println("fine")
	return 0
}

// zeros never end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// as runs this test binary as another user.
func as(t *testing.T, uid uint32, env ...string) string {
	t.Helper()
	out, err := command(t, uid, env...).CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// command is this test binary as another user.
func command(t *testing.T, uid uint32, env ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	// The other user cannot look into the directory where go test builds.
	cmd := exec.CommandContext(within(t), "/proc/self/fd/3")
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = self.Close() }) // opened for reading
	cmd.ExtraFiles = []*os.File{self}
	cmd.Dir = "/"
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

func open(t *testing.T, address string) {
	t.Helper()
	for path, mode := range map[string]os.FileMode{filepath.Dir(address): 0o711, address: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnotherUser(t *testing.T) {
	f := newFake()
	address, s := serve(t, f, func(o *server.Options) { o.Allowed = func(wire.Credentials) bool { return true } })
	open(t, address)
	c := dial(t, address)
	e := start(t, c, &api.StartRequest{ID: "root's", KillOnDisconnect: true})
	want(t, "what the other says", as(t, otherUID, otherUser+"="+address, otherUser+"_ID="+e.ID), "fine")
	// It has not become the owner, or the execution would wait for its killer.
	if s.Owned() != 1 || s.Orphans() != 0 {
		t.Error("another user took the execution over")
	}
}

// TestAGreedyUser: streams and unread stdin of one user are bounded over all its
// connections, and what it gives back it may use again.
func TestAGreedyUser(t *testing.T) {
	f := newFake()
	f.attach = func(ctx context.Context, _ string, _ *api.AttachOptions) error {
		<-ctx.Done()
		return ctx.Err()
	}
	address, s := serve(t, f, func(o *server.Options) {
		o.Allowed = func(wire.Credentials) bool { return true }
		o.MaxStreamsPerUID, o.MaxUnreadPerUID = 2, 1<<20
	})
	open(t, address)
	for range 2 {
		if out := as(t, otherUID, otherUser+"="+address); out != "fine" {
			t.Fatal(out)
		}
		eventually(t, "the connections end", func() bool { return s.Connections() == 0 })
	}
}

// TestPipesAreForOurOwn: nobody else gets the pipe of a stream, whose lock he could keep.
func TestPipesAreForOurOwn(t *testing.T) {
	f := newFake()
	given := make(chan bool, 1)
	f.attach = func(_ context.Context, _ string, o *api.AttachOptions) error {
		_, ok := o.Stdout.(api.PipeTaker)
		given <- ok
		return nil
	}
	address, _ := serve(t, f, func(o *server.Options) { o.Allowed = func(wire.Credentials) bool { return true } })
	open(t, address)
	for uid, want := range map[uint32]bool{0: true, otherUID: false} {
		if out := as(t, uid, otherUser+"="+address, otherUser+"_FOLLOWS=1"); out != "fine" {
			t.Fatal(uid, out)
		}
		if got := <-given; got != want {
			t.Errorf("uid %d: a pipe is offered: %v", uid, got)
		}
	}
}

func TestAnotherUserIsNotAllowed(t *testing.T) {
	f := newFake()
	address, _ := serve(t, f, nil)
	open(t, address)
	if out := as(t, otherUID, otherUser+"="+address, otherUser+"_ID=x"); !strings.HasPrefix(out, "E5004 ") {
		t.Error(out)
	}
}

// TestAnotherUsersSocket is not trusted: a false supervisor would learn secrets.
func TestAnotherUsersSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to listen as somebody else")
	}
	f := newFake()
	address, _ := serve(t, f, nil)
	// The kernel notes the listener's credentials at listen(2), those of the thread.
	dir := filepath.Dir(address)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	l := listenAs(t, filepath.Join(dir, "theirs"), otherUID)
	defer l.Close()
	if _, err := client.Dial(within(t), filepath.Join(dir, "theirs")); !errors.Is(err, &fault.Fault{Code: fault.NotAuthorised}) {
		t.Error(err)
	}
}

// listenAs listens on a thread with another effective user.
func listenAs(t *testing.T, path string, uid int) net.Listener {
	t.Helper()
	type result struct {
		l   net.Listener
		err error
	}
	done := make(chan result)
	go func() {
		l, err := listenOnThread(path, uid)
		done <- result{l, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.l
}

func TestDialNobody(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "dead"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	silent, err := net.Listen("unix", filepath.Join(dir, "silent"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, hint := range map[string]string{"dead": "Nobody listens", "none": "no such socket", "silent": "does not answer"} {
		ctx, cancel := context.WithCancel(within(t))
		if name == "silent" {
			ctx, cancel = context.WithTimeout(ctx, patience/600)
		}
		_, err := client.Dial(ctx, filepath.Join(dir, name))
		cancel()
		var found *fault.Fault
		if !errors.As(err, &found) || found.Code != fault.Unreachable || !strings.Contains(found.Hint, hint) {
			t.Errorf("%s: %#v", name, err)
		}
	}
}

func TestLongAddress(t *testing.T) {
	f := newFake()
	address, _ := serve(t, f, nil)
	long := filepath.Join(filepath.Dir(address), strings.Repeat("d", 200))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(address, filepath.Join(long, "s")); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t, filepath.Join(long, "s")).Info(within(t)); err != nil {
		t.Error(err)
	}
}
