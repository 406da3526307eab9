"""Joint segmentation and registration of two brain MR studies: the science and the scene logic of JointRegSeg."""

import os as _os

# Large tensors of torch lie in huge pages where the system offers them (Linux): with small ones the kernel spends as
# much time on handing out fresh pages as a convolution needs to fill them. Read by torch at its first allocation.
_os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
