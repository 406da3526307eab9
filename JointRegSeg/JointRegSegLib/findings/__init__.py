"""What is found in visits and reported: volumes and their changes, lesions, what the images show, and the results."""
