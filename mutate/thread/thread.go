// Package thread calls functions on a thread of the operating system that nobody
// else uses. Namespaces belong to threads, and a thread that has entered one
// cannot come back: it is good for nothing else in this program.
package thread

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Own calls f on a thread that is never used again, and returns when f has. The
// thread ends with the call, unless it is the main thread: that would stay.
func Own(f func()) {
	done := make(chan struct{})
	var call func()
	call = func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if unix.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread()
			go call() // on another: this one is taken until that is done
			<-done
			return
		}
		defer close(done)
		f()
	}
	go call()
	<-done
}
