package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/shorttest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"entente": main})
}

// TestScripts runs the scripts that need no member.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}

// TestMemberScripts runs the scripts that need a member. Each has one of its own.
func TestMemberScripts(t *testing.T) {
	shorttest.Skip(t, "runs members as processes")
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/member",
		Setup: memberSetup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": awaitMember, "until": until, "exits": exits, "endpoints": endpoints, "webcert": webcert,
			"agekey": agekey,
		},
	})
}

// memberSetup gives a script a configuration with ports of its own, and the environment to reach the member. In us.hcl
// it has that of a second cluster.
func memberSetup(env *testscript.Env) error {
	ports, err := freePorts(6)
	if err != nil {
		return err
	}
	member := func(name, data string, ports []int) string {
		return fmt.Sprintf(`cluster {
  name         = %[1]q
  trust_domain = "%[1]s.example.org"
  region       = "%[1]s-west-1"
}

member {
  id       = "%[1]s-1"
  zone     = "%[1]s-west-1a"
  data_dir = %[2]q
  listen   = "127.0.0.1:%[3]d"
}

bundle_endpoint { listen = "127.0.0.1:%[4]d" }
telemetry { listen = "127.0.0.1:%[5]d" }
`, name, data, ports[0], ports[1], ports[2])
	}
	data, us := filepath.Join(env.WorkDir, "data"), filepath.Join(env.WorkDir, "us")
	config := member("eu", data, ports[:3])
	env.Setenv("US_SOCKET", filepath.Join(us, "admin.sock"))
	second := []byte(member("us", us, ports[3:]))
	if err := os.WriteFile(filepath.Join(env.WorkDir, "us.hcl"), second, 0o600); err != nil {
		return err
	}
	env.Setenv("ENTENTE_SOCKET", filepath.Join(data, "admin.sock"))
	env.Setenv("API", fmt.Sprintf("127.0.0.1:%d", ports[0]))
	env.Setenv("BUNDLES", fmt.Sprintf("127.0.0.1:%d", ports[1]))
	env.Setenv("ENDPOINT", fmt.Sprintf("https://127.0.0.1:%d/", ports[1]))
	return os.WriteFile(filepath.Join(env.WorkDir, "entente.hcl"), []byte(config), 0o600)
}

// freePorts returns ports on which no process listens at the moment.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// waitLimit is how long a script waits for anything: far longer than it takes on a busy machine.
const waitLimit = time.Minute

// poll calls done until it is true, at intervals that two busy cores can bear.
func poll(ctx context.Context, ts *testscript.TestScript, what string, done func() bool) {
	const often = 20 * time.Millisecond
	tick := time.NewTicker(often)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("no %s within %s", what, waitLimit)
		}
	}
}

// until is the script command "until PATTERN COMMAND...": it runs the command again until its output matches.
func until(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	pattern := regexp.MustCompile("(?m)" + args[0])
	poll(ctx, ts, args[0], func() bool {
		return ts.Exec(args[1], args[2:]...) == nil && pattern.MatchString(ts.ReadFile("stdout"))
	})
}

// exits is the script command "exits STATUS COMMAND...": the exit status of the command must be STATUS.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	got := 0
	var failed *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &failed) {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if want := args[0]; strconv.Itoa(got) != want {
		ts.Fatalf("exit status %d, want %s", got, want)
	}
}

// awaitMember is the script command "await [SOCKET]": it waits until the member leads, and has signing authorities.
func awaitMember(ts *testscript.TestScript, _ bool, args []string) {
	socket := ts.Getenv("ENTENTE_SOCKET")
	if len(args) > 0 {
		socket = args[0]
	}
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	member, err := client.New(ctx, client.WithAdminSocket(socket),
		client.WithDialOptions(grpc.WithDefaultCallOptions(grpc.WaitForReady(true))))
	ts.Check(err)
	defer member.Close()
	poll(ctx, ts, "a member that leads and signs", func() bool { return ready(ctx, member) })
}

func ready(ctx context.Context, member *client.Client) bool {
	members, err := member.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{})
	if err != nil || len(members.GetMembers()) == 0 || !members.GetMembers()[0].GetAlive() {
		return false
	}
	list, err := member.Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{})
	active := map[ententev1.AuthorityKind]bool{}
	for _, a := range list.GetAuthorities() {
		if a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE {
			active[a.GetKind()] = true
		}
	}
	return err == nil && len(active) == 2
}

// agekey is the script command "agekey FILE": it writes an age identity into the file, and sets RECIPIENT.
func agekey(ts *testscript.TestScript, _ bool, args []string) {
	identity, err := age.GenerateX25519Identity()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(identity.String()+"\n"), 0o600))
	ts.Setenv("RECIPIENT", identity.Recipient().String())
}
