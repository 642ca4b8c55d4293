package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// agent is the agent of a region, on the one node of the demo.
type agent struct {
	region *region
	child
}

// socket returns the path of the socket of the workloads.
func (a *agent) socket() string { return filepath.Join(a.dir, "public", "api.sock") }

// startAgent starts an agent of a region by a token, and waits until it serves.
func (w *world) startAgent(ctx context.Context, r *region) (*agent, error) {
	a := &agent{region: r, child: child{dir: filepath.Join(w.dir, r.name+"-agent")}}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the agent of %s: %w", r.name, err)
	}
	token, err := r.conn.Agents().CreateAgentToken(ctx, &ententev1.CreateAgentTokenRequest{Agent: "node"})
	if err != nil {
		return nil, fmt.Errorf("make a token for the agent of %s: %w", r.name, err)
	}
	file := filepath.Join(a.dir, "token")
	if err := os.WriteFile(file, []byte(token.GetToken()), 0o600); err != nil {
		return nil, fmt.Errorf("write the token of the agent of %s: %w", r.name, err)
	}
	err = a.start("the agent of "+r.name, r.members[0].executable, "agent", "--data-dir", filepath.Join(a.dir, "data"),
		"--workload-socket", a.socket(), "--agent-socket", filepath.Join(a.dir, "admin", "admin.sock"),
		"--token-file", file)
	if err != nil {
		return nil, err
	}
	w.onClose(a.stop)
	err = poll(ctx, a.gone(), func(context.Context) (bool, error) {
		_, err := os.Stat(a.socket())
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("wait until the agent of %s serves: %w%s", r.name, err, a.lastLines())
	}
	return a, nil
}

// register gives this process an ID of the region, with its bundle and those of all domains that it federates with.
func (a *agent) register(ctx context.Context, path string) error {
	_, err := a.region.conn.Entries().CreateEntry(ctx, &ententev1.CreateEntryRequest{Entry: &ententev1.Entry{
		Id: strings.Trim(path, "/"), Agent: "node", SpiffeId: a.region.domain.IDString() + path,
		Selectors: []string{fmt.Sprint("unix:uid:", os.Getuid())}, X509SvidTtl: durationpb.New(svidTTL),
		FederatesWithAll: true,
	}})
	if err != nil {
		return fmt.Errorf("register %s in %s: %w", path, a.region.name, err)
	}
	return nil
}
