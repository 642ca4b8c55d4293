package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/e2e/chaos"
	"github.com/ententehq/entente/internal/damagetest"
)

// take injects the faults of a step, ends them, and waits until the cluster has come through.
func (r *chaosRun) take(step chaos.Step) {
	r.t.Logf("%s %s", time.Since(r.began).Round(time.Millisecond), step)
	before := r.h.Acknowledged()
	overlap := len(step.Faults) > 1
	targets := r.targets(step)
	var ends []func() // of the faults that last
	for i, f := range step.Faults {
		p := targets[i]
		r.faults[f.Kind]++
		r.t.Logf("%s %s begins: %s", time.Since(r.began).Round(time.Millisecond), f.Kind, p.id)
		if end := r.begin(f, p, step.Lasts, overlap); end != nil {
			ends = append(ends, end)
		}
		if overlap && i == 0 {
			r.last(time.Second, true)
		}
	}
	if len(ends) > 0 {
		r.last(step.Lasts, overlap)
	}
	for _, end := range ends {
		end()
	}
	r.settle(step)
	r.load.renew() // what a restore may have changed is not checked
	r.t.Logf("%s came through; %d writes were acknowledged meanwhile", time.Since(r.began).Round(time.Millisecond),
		r.h.Acknowledged()-before)
}

// targets returns the members that the faults of a step are of.
func (r *chaosRun) targets(step chaos.Step) (targets []*process) {
	for i, f := range step.Faults {
		p := r.c.members[f.Member]
		if f.Leader {
			p = r.c.leader()
		}
		if i > 0 && p == targets[0] && chaos.Apart(step.Faults[0].Kind, f.Kind) {
			p = r.c.members[(slices.Index(r.c.members, p)+1)%len(r.c.members)]
		}
		targets = append(targets, p)
	}
	return targets
}

// last lets faults last. How soon a member notices two at a time is not judged.
func (r *chaosRun) last(d time.Duration, overlap bool) {
	if !overlap {
		r.wait(d)
		return
	}
	for left := d; left > 0; left -= time.Second {
		for _, p := range r.c.members {
			r.life(p)
		}
		r.wait(min(left, time.Second))
	}
}

// begin begins a fault, and returns what ends it, or nil if it has ended: it was an event, or lasted for as long as it
// should. Of a fault that overlaps another, only what must never happen is judged, and not how soon it is noticed.
func (r *chaosRun) begin(f chaos.Fault, p *process, lasts time.Duration, overlap bool) (end func()) {
	switch f.Kind {
	case chaos.Kill:
		r.kill(p)
		return func() { r.start(p) }
	case chaos.KillAll:
		for _, p := range r.c.members {
			r.kill(p)
		}
		for _, p := range r.c.members {
			r.start(p)
		}
	case chaos.Pause:
		r.life(p)
		p.send(syscall.SIGSTOP)
		return func() {
			p.send(syscall.SIGCONT)
			r.life(p)
		}
	case chaos.Roll:
		for _, p := range r.c.members {
			r.life(p)
			p.stop()
			r.start(p)
			eventually(r.t, p.id+" serves again", func() error { return r.ready(p) })
		}
	case chaos.Transfer:
		ctx, cancel := context.WithTimeout(r.t.Context(), callLimit)
		defer cancel()
		_, _ = p.socket().Cluster().TransferLeadership(ctx, &ententev1.TransferLeadershipRequest{Id: p.id}) // or not
	case chaos.Flip, chaos.Cut:
		r.kill(p)
		if overlap { // the others can repair it while the first fault lasts
			r.damage(f, p)
			return nil
		}
		return func() { r.damage(f, p) }
	case chaos.Restore:
		r.restore(lasts, p)
	case chaos.Lose:
		r.lose(p)
	case chaos.Isolate, chaos.Deaf, chaos.Mute, chaos.Flap, chaos.Loss30, chaos.Loss50:
		return r.world.cut(r, f.Kind, slices.Index(r.c.members, p), lasts)
	case chaos.Full, chaos.ReadOnly, chaos.BadSync, chaos.SlowSync, chaos.HungSync:
		return r.spoil(f.Kind, p, overlap)
	case chaos.Ahead, chaos.Behind:
		return r.shift(f, p)
	default:
		r.t.Fatalf("no fault %q", f.Kind)
	}
	return nil
}

// spoil begins a fault of a member's disk. What ends it judges what the member has done about it.
func (r *chaosRun) spoil(kind chaos.Kind, p *process, overlap bool) (end func()) {
	disk := r.world.disks[slices.Index(r.c.members, p)]
	repair := func() { disk.set("ok") }
	if kind == chaos.Full {
		disk.fill()
		repair = disk.empty
	} else {
		disk.set(string(kind))
	}
	began := time.Now()
	return func() {
		defer repair()
		if !overlap {
			r.judgeDisk(kind, p, time.Since(began).Round(time.Second))
		}
	}
}

// judgeDisk judges what a member has done about a fault of its disk that goes on.
func (r *chaosRun) judgeDisk(kind chaos.Kind, p *process, lasted time.Duration) {
	switch kind {
	case chaos.Full:
		if p.readyTo("/ready/write") == nil {
			r.wrongf("%s has had no room for %s, and is ready to write", p.id, lasted)
		}
		if r.c.leader() == p {
			r.wrongf("%s has had no room for %s, and leads", p.id, lasted)
		}
	case chaos.HungSync:
		if connection, err := net.Dial("tcp", p.api); err == nil {
			_ = connection.Close()
			r.wrongf("the disk of %s has hung for %s, and it accepts connections", p.id, lasted)
		}
	case chaos.ReadOnly, chaos.BadSync:
		eventually(r.t, p.id+" ends, since its disk fails", func() error {
			if p.isRunning() {
				return errors.New("it runs")
			}
			return nil
		})
	case chaos.SlowSync:
		r.t.Logf("after %s with a slow disk, %s leads: %t", lasted, p.id, r.c.leader() == p)
	}
}

func (r *chaosRun) wrongf(format string, arguments ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf(format, arguments...))
}

// shift sets the clock of a member. What it returns sets it right again.
func (r *chaosRun) shift(f chaos.Fault, p *process) (end func()) {
	i := slices.Index(r.c.members, p)
	by := time.Duration(20+f.Seed%1420) * time.Minute
	if f.Kind == chaos.Behind {
		by = -by
	}
	r.t.Logf("the clock of %s is shifted by %s", p.id, by)
	r.world.shift(i, by)
	return func() { r.world.shift(i, 0) }
}

// wait lets a fault last.
func (r *chaosRun) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.t.Context().Done():
	}
}

// life records that a member was stopped, started, paused or continued.
func (r *chaosRun) life(p *process) { r.h.Add(chaos.Life{At: time.Since(r.began), Member: p.id}) }

func (r *chaosRun) kill(p *process) {
	r.life(p)
	p.kill()
}

// start starts a member that does not run.
func (r *chaosRun) start(p *process) {
	if p.isRunning() {
		return
	}
	p.run()
	r.life(p)
}

// send sends a signal to the process, and does not wait for its end.
func (p *process) send(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.cmd.Process.Signal(s) // it may have ended
}

// damage damages one file of a stopped member. The member serves what it had, or refuses: it is then repaired by what
// it says.
func (r *chaosRun) damage(f chaos.Fault, p *process) {
	data := filepath.Join(p.dir, "data")
	kept := filepath.Join(r.t.TempDir(), "kept")
	copyData(r.t, data, kept)
	how := damagetest.Flip
	if f.Kind == chaos.Cut {
		how = damagetest.Cut
	}
	what := how(r.t, rand.New(rand.NewPCG(f.Seed, 1)), data)
	r.t.Logf("%s: %s", p.id, what)
	r.start(p)
	eventually(r.t, p.id+" serves or refuses", func() error {
		if !p.isRunning() {
			return nil
		}
		return errors.Join(p.ready(), p.readyTo("/ready/write"))
	})
	if p.isRunning() || r.repaired(p) {
		return
	}
	// What only this member had is restored from a copy.
	r.t.Logf("%s: its files are restored from a copy", p.id)
	require.NoError(r.t, os.RemoveAll(data))
	copyData(r.t, kept, data)
	r.start(p)
}

// copyData copies the regular files of a data folder.
func copyData(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case entry.IsDir():
			return os.MkdirAll(target, 0o700)
		case !entry.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o600)
	}))
}

// restore saves a snapshot, and restores it a little later while the leader is killed.
func (r *chaosRun) restore(lasts time.Duration, p *process) {
	ctx, cancel := context.WithTimeout(r.t.Context(), waitLimit)
	defer cancel()
	restored := chaos.Restored{Span: chaos.Span{Call: time.Since(r.began)}}
	// Until the cluster has come through the step, everything may be lost.
	defer func() { r.restored = append(r.restored, restored) }()
	// A fault that this one overlaps may have ended the member, or keep it from answering.
	if !p.isRunning() {
		p = r.c.leader()
	}
	saving, stop := context.WithTimeout(ctx, 3*callLimit)
	defer stop()
	snapshot, err := save(saving, p)
	if err != nil {
		r.t.Logf("no snapshot was saved: %v", err)
		return
	}
	r.wait(lasts)
	ended := make(chan error, 1)
	go func() { ended <- restoreFrom(ctx, p, snapshot) }()
	leader := r.c.leader()
	r.kill(leader)
	r.start(leader)
	r.t.Logf("a snapshot of %d bytes was restored while %s was killed: %v", len(snapshot), leader.id, <-ended)
}

// lose loses the disks of all members but one. That one is recovered to a cluster by itself, and the others join it as
// new members. All that it had applied before is still there.
func (r *chaosRun) lose(survivor *process) {
	lost := chaos.Restored{}
	eventually(r.t, survivor.id+" has all that was acknowledged", func() error {
		ctx, cancel := context.WithTimeout(r.t.Context(), callLimit)
		defer cancel()
		lost.Call = time.Since(r.began)
		_, err := survivor.socket().Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{}) // linearizable
		return err
	})
	defer func() { r.restored = append(r.restored, lost) }()
	for _, p := range r.c.members {
		r.kill(p)
	}
	for _, p := range r.c.others(survivor) {
		require.NoError(r.t, os.RemoveAll(filepath.Join(p.dir, "data")))
	}
	out, err := recoverWith(r.t, survivor, "--cluster", r.c.name)
	require.NoError(r.t, err, out)
	r.start(survivor)
	for _, p := range r.c.others(survivor) {
		var token string
		eventually(r.t, p.id+" may join again", func() error {
			ctx, cancel := context.WithTimeout(r.t.Context(), callLimit)
			defer cancel()
			made, err := survivor.socket().Cluster().CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{
				MemberId: p.id, AutoApprove: true,
			})
			token = made.GetToken()
			return err
		})
		p.configure(r.c, token, survivor.api)
		r.start(p)
		eventually(r.t, p.id+" has joined again", func() error { return r.ready(p) })
	}
}

func save(ctx context.Context, p *process) ([]byte, error) {
	stream, err := p.socket().Cluster().SaveSnapshot(ctx, &ententev1.SaveSnapshotRequest{})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		out.Write(part.GetData())
	}
}

func restoreFrom(ctx context.Context, p *process, snapshot []byte) error {
	stream, err := p.socket().Cluster().RestoreSnapshot(ctx)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(snapshot, 64<<10) {
		if err := stream.Send(&ententev1.RestoreSnapshotRequest{Data: part}); err != nil {
			break // CloseAndRecv returns why
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}
