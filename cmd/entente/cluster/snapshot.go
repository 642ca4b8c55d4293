package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/inspect"
)

// snapshotTimeout is the default timeout of saving and restoring: a large state over a slow network.
const snapshotTimeout = 10 * time.Minute

var snapshotInput = cli.Input{Name: "FILE", Remedy: "name a snapshot, as 'entente cluster snapshot save' writes it"}

func snapshotCommand(env *cli.Env) *cobra.Command {
	return cli.Group(
		"snapshot", "Save, restore and inspect the replicated state", snapshotSaveCommand(env),
		snapshotRestoreCommand(env), snapshotInspectCommand(env),
	)
}

// transferring returns a RunE with the timeout of snapshots, unless --timeout is given.
func transferring(
	env *cli.Env, fn func(ctx context.Context, member *cli.Member, file string) error,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if !env.TimeoutSet {
			env.Timeout = snapshotTimeout
		}
		return env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			return fn(ctx, member, args[0])
		})(cmd, args)
	}
}

func snapshotSaveCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "save FILE",
		Short: "Save a snapshot of the whole replicated state",
		Long: `Save a snapshot of the whole replicated state: everything but private keys, which never leave
their members.

The file appears when it is complete and checked.`,
		Example: `  entente cluster snapshot save state.snap`,
		Args:    cli.Arguments("FILE"),
		RunE: transferring(env, func(ctx context.Context, member *cli.Member, file string) error {
			stream, err := member.Cluster().SaveSnapshot(ctx, &ententev1.SaveSnapshotRequest{})
			if err != nil {
				return err
			}
			var report *inspect.SnapshotReport
			err = cli.WriteFile(file, cli.SecretMode, func(f *os.File) error {
				if err := receive(stream, f); err != nil {
					return err
				}
				if _, err := f.Seek(0, io.SeekStart); err != nil {
					return err
				}
				report, err = inspect.Snapshot(f)
				return err
			})
			if err != nil {
				return err
			}
			return env.Print(report, snapshotTable(report))
		}),
	}
}

func receive(stream grpc.ServerStreamingClient[ententev1.SaveSnapshotResponse], w io.Writer) error {
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(part.GetData()); err != nil {
			return err
		}
	}
}

func snapshotRestoreCommand(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Replace the replicated state by a snapshot",
		Long: `Replace the replicated state by a snapshot, which is checked whole first. The effect is shown,
and the command asks.

The snapshot must be of this cluster, or the cluster must be empty. Membership, revocations and spent tokens stay as
they are; the sequences of hosted bundles keep rising.`,
		Example: `  entente cluster snapshot restore state.snap --dry-run
  entente cluster snapshot restore state.snap`,
		Args: cli.Arguments("FILE"),
	}
	run := env.Destroys(cmd).Run(
		func(args []string) string { return "Replace the state of the cluster by " + args[0] },
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return previewRestore(ctx, member, args[0])
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := restore(ctx, member, args[0])
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) {
				t.Otherwise(
					"Restored: the state of revision %d is now revision %d.", done.GetSnapshotRevision(),
					done.GetRevision(),
				)
			})
		})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !env.TimeoutSet {
			env.Timeout = snapshotTimeout
		}
		return run(cmd, args)
	}
	return cmd
}

// openSnapshot opens a snapshot and checks it.
func openSnapshot(file string) (*os.File, *inspect.SnapshotReport, error) {
	f, err := snapshotInput.Open(file)
	if err != nil {
		return nil, nil, err
	}
	report, err := inspect.Snapshot(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", file, err), f.Close())
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, report, nil
}

func previewRestore(
	ctx context.Context, member *cli.Member, file string,
) (*ententev1.RestoreSnapshotResponse, error) {
	f, report, err := openSnapshot(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stream, err := member.Cluster().RestoreSnapshot(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&ententev1.RestoreSnapshotRequest{DryRun: true, Snapshot: &ententev1.SnapshotDescription{
		ClusterId: report.ClusterID, Revision: report.Revision, Time: timestamppb.New(report.Time),
	}})
	if err != nil && !errors.Is(err, io.EOF) { // the member's error comes with the response
		return nil, err
	}
	return stream.CloseAndRecv()
}

func restore(ctx context.Context, member *cli.Member, file string) (*ententev1.RestoreSnapshotResponse, error) {
	f, _, err := openSnapshot(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stream, err := member.Cluster().RestoreSnapshot(ctx)
	if err != nil {
		return nil, err
	}
	return send(stream, f)
}

func send(
	stream grpc.ClientStreamingClient[ententev1.RestoreSnapshotRequest, ententev1.RestoreSnapshotResponse], r io.Reader,
) (*ententev1.RestoreSnapshotResponse, error) {
	const partBytes = 64 << 10
	buf := make([]byte, partBytes)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			// EOF means that the member has responded already, with what CloseAndRecv returns.
			if err := stream.Send(&ententev1.RestoreSnapshotRequest{Data: buf[:n]}); errors.Is(err, io.EOF) {
				return stream.CloseAndRecv()
			} else if err != nil {
				return nil, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return stream.CloseAndRecv()
		case err != nil:
			return nil, err
		}
	}
}

func snapshotInspectCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect FILE",
		Short: "Check a snapshot file and describe its content, without a member",
		Long: `Check a snapshot file and describe its content, without a member. It verifies the checksum of the file,
and prints the cluster, the revision, the time and the number of rows of each table.`,
		Example: `  entente cluster snapshot inspect state.snap`,
		Args:    cli.Arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := snapshotInput.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			report, err := inspect.Snapshot(f)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return env.Print(report, snapshotTable(report))
		},
	}
}

func snapshotTable(r *inspect.SnapshotReport) func(*cli.Table) {
	return func(t *cli.Table) {
		t.Field("cluster", r.ClusterID)
		t.Field("revision", r.Revision)
		t.Field("taken", fmt.Sprintf("%s (%s)", r.Time.UTC().Format(time.RFC3339), cli.Ago(time.Since(r.Time))))
		t.Field("format", r.FormatVersion)
		t.Field("bytes", r.Bytes)
		t.Field("sha256", r.SHA256)
		for _, table := range r.Tables {
			t.Field("table "+table.Name, fmt.Sprintf("%d rows", table.Rows))
		}
	}
}
