// Command faultfs mounts a folder at another place, with the faults of a disk, for the tests of e2e:
//
//	faultfs FOLDER MOUNT
//
// It prints "mounted", and then obeys the words on its standard input, one a line, each of which it answers with itself:
//
//	ok         everything passes
//	eio-write  each write, each change of a file's size or name, and each fsync returns EIO
//	eio-sync   each fsync returns EIO
//	slow-sync  each fsync takes a second
//	hung-sync  no fsync returns before the next word
//
// At the end of its input it ends the mount and itself. It is a module of its own, so that nothing else depends on FUSE.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "faultfs:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: faultfs FOLDER MOUNT")
	}
	base, err := fs.NewLoopbackRoot(os.Args[1])
	if err != nil {
		return err
	}
	d := &disk{fault: "ok", changed: make(chan struct{})}
	root := &node{LoopbackNode: base.(*fs.LoopbackNode), disk: d}
	root.RootData.RootNode = root
	server, err := fs.Mount(os.Args[2], root, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMount: true, FsName: "faultfs", Name: "faultfs",
	}})
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	fmt.Println("mounted")
	for words := bufio.NewScanner(os.Stdin); words.Scan(); {
		switch word := words.Text(); word {
		case "ok", "eio-write", "eio-sync", "slow-sync", "hung-sync":
			d.set(word)
			fmt.Println(word)
		default:
			return fmt.Errorf("no such fault: %q", word)
		}
	}
	d.set("ok")
	return server.Unmount()
}

// disk is the state of the disk.
type disk struct {
	mu      sync.Mutex
	fault   string
	changed chan struct{} // closed at the next change
}

func (d *disk) set(fault string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = fault
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *disk) now() (string, chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault, d.changed
}

// write returns what happens to a write.
func (d *disk) write() syscall.Errno {
	if fault, _ := d.now(); fault == "eio-write" {
		return syscall.EIO
	}
	return fs.OK
}

// sync returns what happens to an fsync. As with a real disk, no signal interrupts it.
func (d *disk) sync() syscall.Errno {
	for {
		fault, changed := d.now()
		switch fault {
		case "eio-write", "eio-sync":
			return syscall.EIO
		case "slow-sync":
			time.Sleep(time.Second)
			return fs.OK
		case "hung-sync":
			<-changed
			continue
		}
		return fs.OK
	}
}

// node is a file or folder.
type node struct {
	*fs.LoopbackNode
	disk *disk
}

var (
	_ fs.NodeWrapChilder = (*node)(nil)
	_ fs.NodeOpener      = (*node)(nil)
	_ fs.NodeCreater     = (*node)(nil)
	_ fs.NodeRenamer     = (*node)(nil)
	_ fs.NodeSetattrer   = (*node)(nil)
)

func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: ops.(*fs.LoopbackNode), disk: n.disk}
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, flags, errno := n.LoopbackNode.Open(ctx, flags)
	return n.wrap(f, errno), flags, errno
}

func (n *node) Create(
	ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut,
) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.disk.write(); errno != fs.OK {
		return nil, nil, 0, errno
	}
	inode, f, flags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return inode, n.wrap(f, errno), flags, errno
}

func (n *node) Rename(
	ctx context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32,
) syscall.Errno {
	if errno := n.disk.write(); errno != fs.OK {
		return errno
	}
	return n.LoopbackNode.Rename(ctx, name, to, newName, flags)
}

func (n *node) Setattr(
	ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut,
) syscall.Errno {
	if errno := n.disk.write(); errno != fs.OK {
		return errno
	}
	if f, ok := f.(*file); ok {
		return n.LoopbackNode.Setattr(ctx, f.LoopbackFile, in, out)
	}
	return n.LoopbackNode.Setattr(ctx, f, in, out)
}

func (n *node) wrap(f fs.FileHandle, errno syscall.Errno) fs.FileHandle {
	if errno != fs.OK {
		return nil
	}
	return &file{LoopbackFile: f.(*fs.LoopbackFile), disk: n.disk}
}

// file is an open file.
type file struct {
	*fs.LoopbackFile
	disk *disk
}

var (
	_ fs.FileWriter          = (*file)(nil)
	_ fs.FileFsyncer         = (*file)(nil)
	_ fs.FileAllocater       = (*file)(nil)
	_ fs.FilePassthroughFder = (*file)(nil)
)

// PassthroughFd keeps the kernel from writing past this process.
func (f *file) PassthroughFd() (int, bool) { return 0, false }

func (f *file) Write(ctx context.Context, data []byte, at int64) (uint32, syscall.Errno) {
	if errno := f.disk.write(); errno != fs.OK {
		return 0, errno
	}
	return f.LoopbackFile.Write(ctx, data, at)
}

func (f *file) Allocate(ctx context.Context, at, size uint64, mode uint32) syscall.Errno {
	if errno := f.disk.write(); errno != fs.OK {
		return errno
	}
	return f.LoopbackFile.Allocate(ctx, at, size, mode)
}

func (f *file) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if errno := f.disk.sync(); errno != fs.OK {
		return errno
	}
	return f.LoopbackFile.Fsync(ctx, flags)
}
