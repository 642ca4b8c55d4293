package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/inspect"
)

// snapshotTimeout is how long saving and restoring may take unless --timeout is given: a large state over a slow line.
const snapshotTimeout = 10 * time.Minute

func (a *app) snapshotCommand() *cobra.Command {
	return group("snapshot", "Save, restore and inspect the replicated state", a.snapshotSaveCommand(), a.snapshotRestoreCommand(), a.snapshotInspectCommand())
}

// transferring is asking with the time that a snapshot takes.
func (a *app) transferring(fn func(ctx context.Context, conn *grpc.ClientConn, file string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if !a.flags.timeSet {
			a.flags.timeout = snapshotTimeout
		}
		return a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			return fn(ctx, conn, args[0])
		})(cmd, args)
	}
}

func (a *app) snapshotSaveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "save FILE",
		Short: "Save a snapshot of the whole replicated state",
		Long: `Save a snapshot of the whole replicated state: everything but private keys, which never leave their members.

The file appears when it is whole and has been checked.`,
		Args: arguments("FILE"),
		RunE: a.transferring(func(ctx context.Context, conn *grpc.ClientConn, file string) error {
			stream, err := ententev1.NewClusterServiceClient(conn).SaveSnapshot(ctx, &ententev1.SaveSnapshotRequest{})
			if err != nil {
				return err
			}
			var report *inspect.SnapshotReport
			err = writeFileBy(file, secretMode, func(f *os.File) error {
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
			return a.print(report, snapshotTable(report))
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

func (a *app) snapshotRestoreCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "restore FILE",
		Short: "Replace the replicated state by a snapshot",
		Long: `Replace the replicated state by a snapshot, which is checked whole first.

It has to be of this cluster, or the cluster an empty one. Membership, revocations and spent tokens stay as they
are; the sequences of hosted bundles go on upwards.`,
		Args: arguments("FILE"),
		RunE: a.transferring(func(ctx context.Context, conn *grpc.ClientConn, file string) error {
			f, err := snapshotInput.open(file)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := inspect.Snapshot(f); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return err
			}
			stream, err := ententev1.NewClusterServiceClient(conn).RestoreSnapshot(ctx)
			if err != nil {
				return err
			}
			done, err := send(stream, f)
			if err != nil {
				return err
			}
			return a.print(done, func(t *table) {
				t.otherwise("Restored: the state of revision %d is now revision %d.", done.GetSnapshotRevision(), done.GetRevision())
			})
		}),
	}
}

func send(stream grpc.ClientStreamingClient[ententev1.RestoreSnapshotRequest, ententev1.RestoreSnapshotResponse], r io.Reader) (*ententev1.RestoreSnapshotResponse, error) {
	const partBytes = 64 << 10
	buf := make([]byte, partBytes)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			// EOF means that the member has answered already: CloseAndRecv tells what.
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

func (a *app) snapshotInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect FILE",
		Short: "Check a snapshot file and say what it holds, without a member",
		Args:  arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := snapshotInput.open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			report, err := inspect.Snapshot(f)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return a.print(report, snapshotTable(report))
		},
	}
}

func snapshotTable(r *inspect.SnapshotReport) func(*table) {
	return func(t *table) {
		t.field("cluster", r.ClusterID)
		t.field("revision", r.Revision)
		t.field("taken", fmt.Sprintf("%s (%s)", r.Time.UTC().Format(time.RFC3339), ago(time.Since(r.Time))))
		t.field("format", r.FormatVersion)
		t.field("bytes", r.Bytes)
		t.field("sha256", r.SHA256)
		for _, table := range r.Tables {
			t.field("table "+table.Name, fmt.Sprintf("%d rows", table.Rows))
		}
	}
}
